"""``nmt evaluate``: options, their consistency checks, and the steps of an evaluation."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nmt import options
from nmt.errors import NmtError
from nmt.io.write import (
    check_inside,
    check_output_file,
    is_same_file,
    refuse_overwriting,
    write_text,
    write_whole,
    writing_to,
)
from nmt.log import print_text

if TYPE_CHECKING:  # torch and sacreBLEU are imported when the command runs
    from nmt.evaluate.inputs import System, Texts
    from nmt.evaluate.report import ByLength, Evaluation
    from nmt.run.models import Model

logger = logging.getLogger(__name__)


class Metric(str, Enum):
    """A metric besides BLEU and chrF."""

    CHRF_WORDS = "chrf++"
    TER = "ter"


def _compare(name: str, **settings: Any) -> Any:
    return typer.Option(name, rich_help_panel="Comparison", **settings)


def _gate(name: str, **settings: Any) -> Any:
    return typer.Option(name, rich_help_panel="Quality gate", **settings)


def _report(name: str, **settings: Any) -> Any:
    return typer.Option(name, rich_help_panel="Reports", metavar="FILE", **settings)


@dataclass(frozen=True)
class Request:
    """The options by name. Those without a help panel are the common ones."""

    systems: Annotated[
        list[Path],
        typer.Argument(
            metavar="[SYSTEM]...",
            help="Run directories, packages or files of hypotheses, the first is the baseline; "
            "default: the newest finished run in runs/.",
        ),
    ] = field(default_factory=list)
    src: Annotated[
        Path | None,
        typer.Option("--src", metavar="FILE", help="Chinese lines, instead of the run's test set."),
    ] = None
    refs: Annotated[
        list[Path],
        typer.Option(
            "--ref", metavar="FILE", help="English references; repeat for several per line."
        ),
    ] = field(default_factory=list)
    metrics: Annotated[
        list[Metric],
        typer.Option(
            "--metric",
            metavar="NAME",
            case_sensitive=False,
            help="Further metric besides BLEU and chrF: chrf++ or ter. Repeatable.",
        ),
    ] = field(default_factory=list)
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="DIR",
            help="Folder for report.json and hypotheses.txt; default: RUN/evaluation, or "
            "evaluation without a run.",
        ),
    ] = None
    device: options.Device = "auto"
    beam: options.Beam = None
    compare: Annotated[
        bool, _compare("--compare", help="Test the systems against the first of them.")
    ] = False
    by_length: Annotated[
        str | None,
        _compare(
            "--by-length",
            metavar="EDGES",
            help="Also score by source length: auto, or the maximum length of each bucket in "
            "characters: --by-length 10,20,40.",
        ),
    ] = None
    chart: Annotated[
        Path | None,
        _compare("--chart", metavar="FILE", help="Draw the scores by length, as .svg or .png."),
    ] = None
    min_bleu: Annotated[
        float | None,
        _gate("--min-bleu", min=0.0, max=100.0, metavar="X", help="Exit with 3 if BLEU is lower."),
    ] = None
    min_chrf: Annotated[
        float | None,
        _gate("--min-chrf", min=0.0, max=100.0, metavar="X", help="Exit with 3 if chrF is lower."),
    ] = None
    baseline: Annotated[
        Path | None,
        _gate(
            "--baseline",
            metavar="REPORT",
            help="Exit with 3 if BLEU is significantly lower than in this report.json.",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        _gate(
            "--max-drop",
            min=0.0,
            max=100.0,
            metavar="X",
            help="Allowed drop of BLEU below --baseline; default: 0.",
        ),
    ] = None
    junit: Annotated[
        Path | None, _gate("--junit", metavar="FILE", help="Write the checks as JUnit XML.")
    ] = None
    markdown: Annotated[
        Path | None,
        _report("--markdown", help="Write the report as Markdown; - is stdout, instead of text."),
    ] = None
    html: Annotated[
        Path | None,
        _report("--html", help="Write an HTML page: curves, scores, sentences."),
    ] = None
    batch_size: options.BatchSize = 64
    length_penalty: options.LengthPenalty = None

    @property
    def folder(self) -> Path:
        """Folder of the report."""
        if self.output is not None:
            return self.output
        single = len(self.systems) == 1 and self.systems[0].is_dir()
        return self.systems[0] / "evaluation" if single else Path("evaluation")


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
    from nmt.evaluate import report
    from nmt.run.directory import newest_run

    request = replace(request, systems=request.systems or [newest_run(options.RUNS)])
    check(request)
    evaluation = run(request)
    to_stdout = str(request.markdown) == "-"
    with contextlib.ExitStack() as stack:
        # Reports are written after the verdict is printed, and even if printing it fails.
        stack.callback(write_reports, request, evaluation)
        text = report.markdown(evaluation) if to_stdout else report.summary(evaluation)
        print_text(text.rstrip("\n"))
        for result in evaluation.checks:
            logger.info(f"gate: {result.message}")
    if not all(result.passed for result in evaluation.checks):
        raise typer.Exit(3)


def check(request: Request) -> None:
    """Check the options before anything is translated.

    Raises:
        NmtError: options that contradict each other; an output that cannot be written.
    """
    from nmt.evaluate import lengths
    from nmt.viz import plots

    count = len(request.systems)
    for path in _output_files(request):
        check_output_file(path)
    if request.by_length is not None:
        lengths.parse_bounds(request.by_length)
    if request.max_drop is not None and request.baseline is None:
        raise NmtError("--max-drop requires --baseline")
    gated = {
        "--min-bleu": request.min_bleu, "--min-chrf": request.min_chrf,
        "--baseline": request.baseline, "--html": request.html,
    }  # fmt: skip
    for option, value in gated.items():
        if count > 1 and value is not None:
            raise NmtError(f"{option} is for one system, {count} were given")
    if count > 1 and not (request.compare or request.by_length is not None):
        raise NmtError(f"{count} systems were given", "add --compare, --by-length auto or both")
    if request.compare and count < 2:
        raise NmtError("--compare needs two systems or more, the baseline first")
    if request.by_length is None and request.chart is not None:
        raise NmtError("--chart requires --by-length", "add --by-length auto")
    with_source = request.src is not None or any(path.is_dir() for path in request.systems)
    if request.by_length is not None and not with_source:
        raise NmtError("--by-length needs the source: --src FILE")
    _check_overwriting(request)
    if request.chart is not None:
        plots.check_chart_name(request.chart)
    folder = next(path for path in (request.folder, *request.folder.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        raise NmtError(
            f"{request.folder}: cannot be written, the report belongs there",
            "name another folder: --output DIR",
        )


def _output_files(request: Request) -> list[Path]:
    """Return the files that options name."""
    markdown = options.none_if_stdout(request.markdown)
    paths = (markdown, request.junit, request.html, request.chart)
    return [path for path in paths if path is not None]


def _check_overwriting(request: Request) -> None:
    """Raise if an output would overwrite an input, another output, or a file outside a run."""
    folder, baseline = request.folder, request.baseline
    if baseline is not None and is_same_file(baseline, folder / "report.json"):
        raise NmtError(
            f"--baseline {baseline}: the report of this evaluation would overwrite it",
            "keep a copy elsewhere, in your repository for example, or give --output DIR",
        )
    single = len(request.systems) == 1
    report = folder / ("report.json" if single else "comparison.json")
    texts = [path for path in (request.src, *request.refs) if path is not None]
    inputs = [*texts, *request.systems, *([] if baseline is None else [baseline])]
    refuse_overwriting([report, *_output_files(request)], inputs)
    if single:  # a hypotheses.txt that is scored again is replaced by the same lines
        refuse_overwriting([folder / "hypotheses.txt"], texts)
    for system in request.systems:
        if system.is_dir() and folder.is_relative_to(system):
            for name in ("report.json", "comparison.json", "hypotheses.txt"):
                check_inside(folder / name, system)


def run(request: Request) -> Evaluation:
    """Translate, score, compare and check. All inputs are read before anything is translated.

    Raises:
        NmtError: an input is missing, damaged or unfit.
    """
    from nmt.evaluate import gate, inputs, lengths, metrics, report

    kinds: list[metrics.Kind] = [*metrics.DEFAULT, *(metric.value for metric in request.metrics)]
    bounds = None if request.by_length is None else lengths.parse_bounds(request.by_length)
    texts, sources = inputs.read_inputs(request.systems, request.src, request.refs)
    inputs.warn_of_training_sentences(sources, texts)
    baseline = None if request.baseline is None else gate.read_baseline(request.baseline, texts)
    systems = [
        source if isinstance(source, inputs.System) else _translate(source, texts, request)
        for source in sources
    ]
    scores = [
        metrics.score(
            system.hypotheses, texts.references, kinds=kinds, resamples=metrics.RESAMPLES
        )
        for system in systems
    ]  # fmt: skip
    checks = gate.check_floors(scores[0], {"BLEU": request.min_bleu, "chrF2": request.min_chrf})
    if request.baseline is not None and baseline is not None:
        hypotheses, max_drop = systems[0].hypotheses, request.max_drop or 0.0
        checks.append(gate.check_drop(request.baseline, baseline, hypotheses, texts, max_drop))
    comparisons = None
    if request.compare:
        first, *others = (system.hypotheses for system in systems)
        comparisons = [
            metrics.compare(first, others, texts.references, test=test, kinds=kinds)
            for test in metrics.TRIALS
        ]
    by_length = None if request.by_length is None else _score_by_length(systems, texts, bounds)
    return report.Evaluation(systems, texts, scores, checks, comparisons, by_length)


def _translate(model: Model, texts: Texts, request: Request) -> System:
    """Translate the test set with a model."""
    from tqdm import tqdm

    from nmt.evaluate.inputs import System
    from nmt.run.directory import Run
    from nmt.translate.translator import Translator

    assert texts.source is not None  # checked by `read_inputs`
    name = str(model.path)
    translator = Translator.load(model, request.device)
    translator.change_search({"beam": request.beam, "length_penalty": request.length_penalty})
    stream = translator.stream(texts.source, request.batch_size)
    title, total = f"translating, {name}", texts.segments
    translations = list(tqdm(stream, title, total, unit=" lines", disable=None))
    details = {
        "model": name,
        "update": translator.updates[0],
        "identity": model.identity,
        "texts": texts.names,
        "search": translator.search.model_dump(),
    }
    run = model if isinstance(model, Run) else None
    return System(name, [line.text for line in translations], run, details, translations)


def _score_by_length(
    systems: Sequence[System], texts: Texts, bounds: Sequence[int] | None
) -> ByLength:
    from nmt.evaluate import lengths

    assert texts.source is not None  # checked by `check`
    buckets = lengths.make_buckets(texts.source, bounds)
    return buckets, {
        system.name: lengths.score_buckets(buckets, system.hypotheses, texts.references)
        for system in systems
    }


def write_reports(request: Request, evaluation: Evaluation) -> None:
    """Write the report folder and the files that options name."""
    from nmt.evaluate import gate, report
    from nmt.viz import plots

    folder, systems, texts = request.folder, evaluation.systems, evaluation.texts
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    single = len(systems) == 1
    path = folder / ("report.json" if single else "comparison.json")
    values = (report.system_report if single else report.comparison_report)(evaluation)
    text = json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, f"{text}\n")
    if single:
        lines = "".join(f"{line}\n" for line in systems[0].hypotheses)
        write_whole(folder / "hypotheses.txt", lines.encode())
    logger.info(f"report: {path}")
    if request.chart is not None and evaluation.by_length is not None:
        buckets, scores = evaluation.by_length
        labels = [bucket.title for bucket in buckets]
        chart = plots.length_chart(labels, scores, plots.check_chart_name(request.chart))
        write_whole(request.chart, chart)
        logger.info(f"chart: {request.chart}")
    markdown = options.none_if_stdout(request.markdown)
    if markdown is not None:
        write_text(markdown, report.markdown(evaluation))
    if request.junit is not None:
        write_whole(request.junit, gate.junit(evaluation.checks))
    if request.html is not None:
        if evaluation.by_length is None and texts.source is not None:
            evaluation = replace(evaluation, by_length=_score_by_length(systems, texts, None))
        write_text(request.html, report.html_page(evaluation))
        logger.info(f"page: {request.html}")
