"""Charts, drawn by matplotlib (the extra ``plots``)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Score
from nmt.text import replacing

KINDS = ("svg", "png")
# The first two colours of Okabe & Ito's set that differ most, then the rest: told apart
# by readers who see no red or green.
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
_MARKERS = "os^Dv*"


def check_chart_name(path: Path) -> str:
    """The kind of picture that `path` asks for.

    Raises:
        NmtError: neither .svg nor .png, or matplotlib is missing.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise NmtError(f"{path}: a chart is .svg or .png, not {path.suffix or 'without ending'}")
    _pyplot()
    return kind


def check_installed() -> None:
    """Make sure that charts can be drawn, before the work they would show is done.

    Raises:
        NmtError: matplotlib is missing.
    """
    _pyplot()


def length_chart(
    buckets: Sequence[Bucket], scores: Mapping[str, Sequence[Score]], kind: str
) -> bytes:
    """Scores against source length, a line for each system, with 95 % intervals.

    Args:
        buckets: across.
        scores: of each system, one for each bucket.
        kind: ``svg`` (text stays text) or ``png``.
    """
    plt = _pyplot()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nmt", "font.size": 10}):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
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
        return _picture(plt, figure, kind)


def curves(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Loss and dev scores over updates, from a run's journal, as SVG.

    Returns:
        None if the journal holds neither.
    """
    logs = [r for r in records if r.get("kind") == "log"]
    validations = [r for r in records if r.get("kind") == "validation"]
    if not logs and not validations:
        return None
    plt = _pyplot()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nmt", "font.size": 10}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
        left.plot([r["update"] for r in logs], [r["loss"] for r in logs], color=_COLOURS[0])
        left.set_ylabel("training loss, nats per token")
        for key, label, colour in (
            ("dev_bleu", "dev BLEU", _COLOURS[0]), ("dev_chrf", "dev chrF2", _COLOURS[1]),
        ):  # fmt: skip
            right.plot(
                [r["update"] for r in validations],
                [r[key] for r in validations],
                color=colour, label=label, marker="o", markersize=3,
            )  # fmt: skip
        right.set_ylim(bottom=0)
        right.legend(frameon=False)
        for axes in (left, right):
            axes.set_xlabel("update")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        return _picture(plt, figure, "svg")


def write_picture(path: Path, picture: bytes) -> None:
    """Write a picture to `path`.

    Raises:
        NmtError: it can't be written.
    """
    with replacing(path) as file:
        file.write(picture)


def _errors(row: Sequence[Score]) -> list[list[float]]:
    """Distances from each value down and up to its interval's ends; never negative."""
    ends = [one.interval or (one.value, one.value) for one in row]
    return [
        [max(0.0, one.value - low) for one, (low, _) in zip(row, ends, strict=True)],
        [max(0.0, high - one.value) for one, (_, high) in zip(row, ends, strict=True)],
    ]


def _picture(plt: Any, figure: Any, kind: str) -> bytes:
    out = io.BytesIO()
    # No date and a fixed salt: the same numbers give the same bytes.
    metadata = {"Date": None} if kind == "svg" else {}
    figure.savefig(out, format=kind, dpi=150, metadata=metadata)
    plt.close(figure)
    return out.getvalue()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise NmtError(
            "charts need matplotlib, which is not installed", "pip install 'nmt-zh-en[plots]'"
        ) from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
