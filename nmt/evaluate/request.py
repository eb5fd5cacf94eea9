"""The options of ``nmt evaluate`` and their consistency checks."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nmt import options
from nmt.errors import NmtError
from nmt.io.write import check_inside, check_output_file, is_same_file, refuse_overwriting

_COMPARISON = "Comparison"
_GATE = "Quality gate"
_REPORTS = "Reports"


class Metric(str, Enum):
    """A metric besides BLEU and chrF."""

    CHRF_WORDS = "chrf++"
    TER = "ter"


@dataclass(frozen=True)
class Request:
    """The options by name. Those without a help panel are the common ones."""

    systems: Annotated[
        list[Path],
        typer.Argument(
            metavar="[SYSTEM]...",
            help="Run directories or files of hypotheses, the first is the baseline; default: the "
            "newest finished run in runs/.",
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
        bool,
        typer.Option(
            "--compare",
            help="Test the systems against the first of them.",
            rich_help_panel=_COMPARISON,
        ),
    ] = False
    by_length: Annotated[
        str | None,
        typer.Option(
            "--by-length",
            metavar="EDGES",
            help="Also score by source length: auto, or the maximum length of each bucket in "
            "characters: --by-length 10,20,40.",
            rich_help_panel=_COMPARISON,
        ),
    ] = None
    chart: Annotated[
        Path | None,
        typer.Option(
            "--chart",
            metavar="FILE",
            help="Draw the scores by length, as .svg or .png.",
            rich_help_panel=_COMPARISON,
        ),
    ] = None
    min_bleu: Annotated[
        float | None,
        typer.Option(
            "--min-bleu",
            min=0.0,
            max=100.0,
            metavar="X",
            help="Exit with 3 if BLEU is lower.",
            rich_help_panel=_GATE,
        ),
    ] = None
    min_chrf: Annotated[
        float | None,
        typer.Option(
            "--min-chrf",
            min=0.0,
            max=100.0,
            metavar="X",
            help="Exit with 3 if chrF is lower.",
            rich_help_panel=_GATE,
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="REPORT",
            help="Exit with 3 if BLEU is significantly lower than in this report.json.",
            rich_help_panel=_GATE,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            max=100.0,
            metavar="X",
            help="Allowed drop of BLEU below --baseline; default: 0.",
            rich_help_panel=_GATE,
        ),
    ] = None
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit",
            metavar="FILE",
            help="Write the checks as JUnit XML.",
            rich_help_panel=_GATE,
        ),
    ] = None
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Write the report as Markdown too.",
            rich_help_panel=_REPORTS,
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write an HTML page: curves, scores, sentences.",
            rich_help_panel=_REPORTS,
        ),
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


def choose_systems(request: Request) -> list[Path]:
    """Return the systems to evaluate: the arguments, or the newest run.

    Raises:
        NmtError: there is no finished run.
    """
    from nmt.run.directory import newest_run

    return request.systems or [newest_run(options.RUNS)]


def check(request: Request) -> None:
    """Check the options of an evaluation of translations, before anything is translated.

    Raises:
        NmtError: options that contradict each other; an output that cannot be written.
    """
    from nmt.evaluate import lengths
    from nmt.viz import plots

    for path in (request.markdown, request.junit, request.html, request.chart):
        check_output_file(path)
    if request.by_length is not None:
        lengths.parse_bounds(request.by_length)  # raises
    gated = [
        name
        for name, value in (
            ("--min-bleu", request.min_bleu),
            ("--min-chrf", request.min_chrf),
            ("--baseline", request.baseline),
            ("--html", request.html),
        )
        if value is not None
    ]
    if request.baseline is not None:
        _check_baseline(request.baseline, request.folder)
    elif request.max_drop is not None:
        raise NmtError("--max-drop requires --baseline")
    if len(request.systems) > 1 and gated:
        raise NmtError(f"{gated[0]} is for one system, {len(request.systems)} were given")
    if len(request.systems) > 1 and not (request.compare or request.by_length is not None):
        raise NmtError(
            f"{len(request.systems)} systems were given", "add --compare, --by-length auto or both"
        )
    if request.compare and len(request.systems) < 2:
        raise NmtError("--compare needs two systems or more, the baseline first")
    if request.by_length is not None:
        no_source = request.src is None and not any(path.is_dir() for path in request.systems)
        if no_source:
            raise NmtError("--by-length needs the source: --src FILE")
    elif request.chart is not None:
        raise NmtError("--chart requires --by-length", "add --by-length auto")
    _check_overwriting(request)
    if request.chart is not None:
        plots.check_chart_name(request.chart)
    for run in request.systems:
        if run.is_dir() and request.folder.is_relative_to(run):
            for name in ("report.json", "comparison.json", "hypotheses.txt"):
                check_inside(request.folder / name, run)
    folder = next(path for path in (request.folder, *request.folder.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        raise NmtError(
            f"{request.folder}: cannot be written, the report belongs there",
            "name another folder: --output DIR",
        )


def _check_baseline(baseline: Path, output: Path) -> None:
    """Raise if the report would overwrite its own baseline."""
    if is_same_file(baseline, output / "report.json"):
        raise NmtError(
            f"--baseline {baseline}: this evaluation would write its own report over it",
            "keep a copy elsewhere, in your repository for example, or give --output DIR",
        )


def _check_overwriting(request: Request) -> None:
    """Raise if an output would overwrite an input or another output."""
    single = len(request.systems) == 1
    report = request.folder / ("report.json" if single else "comparison.json")
    written = (report, request.markdown, request.junit, request.html, request.chart)
    texts = [path for path in (request.src, *request.refs) if path is not None]
    given = [path for path in (*request.systems, request.baseline) if path is not None]
    refuse_overwriting([path for path in written if path is not None], [*texts, *given])
    if single:  # hypotheses scored once more are written as they were
        refuse_overwriting([request.folder / "hypotheses.txt"], texts)
