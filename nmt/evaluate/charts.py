"""Charts, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Score

KINDS = ("svg", "png")
# The first two colours of Okabe & Ito's set that differ most, then the rest: told apart
# by readers who see no red or green.
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
_MARKERS = "os^Dv*"
# What is drawn of a training, a panel each: title, kind of record, field, and how.
_PANELS = (
    ("training loss (nats per token)", "log", "loss", "-"),
    ("dev BLEU", "validation", "dev_bleu", "o-"),
    ("learning rate", "log", "learning_rate", "-"),
    ("speed (target tokens per second)", "log", "tokens_per_second", "-"),
)


def check_chart_name(path: Path) -> str:
    """The kind of picture that `path` asks for.

    Raises:
        NmtError: neither .svg nor .png, or matplotlib is missing.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise NmtError(f"{path}: a chart is .svg or .png, not {path.suffix or 'without ending'}")
    check_installed()
    return kind


def check_installed() -> None:
    """Make sure that charts can be drawn, before the work they would show is done.

    Raises:
        NmtError: matplotlib is missing.
    """
    try:
        import matplotlib as _  # noqa: F401
    except ImportError as error:
        raise NmtError(
            f"charts need matplotlib ({error})", "pip install 'nmt-zh-en[plots]'"
        ) from None


def length_chart(
    buckets: Sequence[Bucket], scores: Mapping[str, Sequence[Score]], kind: str
) -> bytes:
    """Scores against source length, a line for each system, with 95 % intervals.

    Args:
        buckets: across.
        scores: of each system, one for each bucket.
        kind: ``svg`` (text stays text) or ``png``.
    """
    with _drawing((7, 4)) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.subplots()
        for place, (name, row) in enumerate(scores.items()):
            # A little apart, so that intervals don't cover one another.
            shift = (place - (len(scores) - 1) / 2) * 0.06
            colour = _COLOURS[place % len(_COLOURS)]
            axes.errorbar(
                [x + shift for x in range(len(buckets))],
                [one.value for one in row],
                yerr=_errors(row),
                label=name,
                color=colour,
                marker=_MARKERS[place % len(_MARKERS)],
                capsize=3,
                linewidth=1.8,
            )
        labels = [f"{bucket.label}\n({len(bucket.members)})" for bucket in buckets]
        axes.set_xticks(range(len(buckets)), labels)
        axes.set_xlabel("source length in characters (segments)")
        name = next(iter(scores.values()))[0].name if scores else ""
        axes.set_ylabel(f"{name}, 95 % interval")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        return _picture(figure, kind)


def curves(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """A training at a glance, drawn from its journal over updates, as SVG.

    Returns:
        None if the journal holds nothing to draw.
    """
    panels = [
        [(r["update"], r[field]) for r in records if _has(r, kind, field)]
        for _, kind, field, _ in _PANELS
    ]
    if not any(panels):
        return None
    with _drawing((10, 6)) as figure:  # a layout that fits itself costs as much as the drawing
        figure.subplots_adjust(0.07, 0.08, 0.98, 0.94, wspace=0.18, hspace=0.35)
        all_axes = figure.subplots(2, 2).flat
        for axes, points, (title, _, field, style) in zip(all_axes, panels, _PANELS, strict=True):
            if points:
                axes.plot(*zip(*points, strict=True), style, color=_COLOURS[0], markersize=3)
            axes.set_title(title, loc="left", fontsize=10)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlabel("update")
            axes.margins(x=0.02)
            if field not in ("learning_rate", "loss"):
                axes.set_ylim(bottom=0)
        return _picture(figure, "svg")


def _has(record: Mapping[str, Any], kind: str, field: str) -> bool:
    return record.get("kind") == kind and isinstance(record.get(field), (int, float))


def _errors(row: Sequence[Score]) -> list[list[float]]:
    """Distances from each value down and up to its interval's ends; never negative."""
    ends = [one.interval or (one.value, one.value) for one in row]
    return [
        [max(0.0, one.value - low) for one, (low, _) in zip(row, ends, strict=True)],
        [max(0.0, high - one.value) for one, (_, high) in zip(row, ends, strict=True)],
    ]


@contextlib.contextmanager
def _drawing(inches: tuple[float, float]) -> Iterator[Any]:
    """A figure; what is drawn within has the same bytes each time, and text stays text."""
    check_installed()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nmt"}):
        yield Figure(figsize=inches)


def _picture(figure: Any, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(out, format=kind, dpi=150, metadata=metadata)
    return out.getvalue()
