"""``nmt evaluate``."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import typer

from nmt import options
from nmt.evaluate.request import Request, check, choose_systems
from nmt.log import print_text

logger = logging.getLogger(__name__)


@options.takes(Request)
def evaluate(request: Request) -> None:
    """Score a run on its test set, or any file of hypotheses; a quality gate for CI.

    Exit code 3 if a quality gate fails, 2 for a bad request.

    \b
      nmt evaluate
      nmt evaluate runs/quickstart --min-bleu 5
      nmt evaluate --src news.zh --ref news.en --ref news.second.en
      nmt evaluate other-system.en --ref news.en
      nmt evaluate runs/new --baseline report.json --max-drop 1
      nmt evaluate --compare runs/old runs/new
      nmt evaluate --by-length auto runs/additive runs/none --chart lengths.svg
    """
    from nmt.evaluate import run

    request = replace(request, systems=choose_systems(request))
    check(request)
    evaluated = run.evaluate(request)
    with contextlib.ExitStack() as stack:
        stack.callback(evaluated.write)  # after the verdict, and even if printing it fails
        print_text(evaluated.answer)
        for result in evaluated.checks:
            logger.info(f"gate: {result.message}")
    if not all(result.passed for result in evaluated.checks):
        raise typer.Exit(3)
