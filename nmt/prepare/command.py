"""``nmt prepare``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from nmt import options

logger = logging.getLogger(__name__)


def prepare(
    config: options.Config,
    set_: options.Overrides = None,
    check_leak: Annotated[
        list[Path] | None,
        typer.Option(
            "--check-leak",
            metavar="FILE",
            help="Refuse training pairs that share a sentence with this text. Repeatable.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, metavar="N", help="Processes; default: one per core."),
    ] = None,
) -> None:
    """Clean, split and pack a parallel corpus; train its tokenizers.

    Does nothing if the corpus is up to date. The number of dropped pairs for each reason is in
    report.html in the corpus folder.

    \b
      nmt prepare --config configs/quickstart.yaml
      nmt prepare --config configs/tatoeba.yaml --set data.sources.0.path=my.tsv.gz
    """
    options.refuse_windows("prepare")
    from nmt.config.load import load_config
    from nmt.prepare.pipeline import prepare as run_prepare
    from nmt.prepare.report import summary

    loaded = load_config(config, set_)
    manifest, worked = run_prepare(loaded, workers, check_leak or [])
    if worked:
        logger.info(summary(manifest))
    state = "prepared" if worked else "unchanged, nothing to do"
    logger.info(f"report: {loaded.data.dir / 'report.html'}")
    logger.info(f"{loaded.data.dir}: {state}")
