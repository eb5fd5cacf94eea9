"""``curves.svg``: a training at a glance, drawn from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.runtime import warn
from nmt.text import replacing
from nmt.train.journal import read_journal

NAME = "curves.svg"
# One panel each: heading, kind of record, field, and how to draw it.
_PANELS = (
    ("training loss (nats per token)", "log", "loss", "-"),
    ("dev BLEU", "validation", "dev_bleu", "o-"),
    ("learning rate", "log", "learning_rate", "-"),
    ("speed (target tokens per second)", "log", "tokens_per_second", "-"),
)


def plots_are_possible() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw_curves(folder: Path) -> None:
    """Draw loss, dev BLEU, learning rate and speed over updates into ``curves.svg``.

    A picture that can't be written is lost with a warning: training is worth more.
    """
    import matplotlib
    from matplotlib.figure import Figure

    records = read_journal(folder)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nmt"}):
        figure = Figure(figsize=(10, 6))  # a layout that fits itself costs as much as the drawing
        figure.subplots_adjust(0.07, 0.08, 0.98, 0.94, wspace=0.18, hspace=0.35)
        for axes, (heading, kind, field, style) in zip(
            figure.subplots(2, 2).flat, _PANELS, strict=True
        ):
            points = [(r["update"], r[field]) for r in records if _has(r, kind, field)]
            if points:
                axes.plot(*zip(*points, strict=True), style, markersize=3)
            axes.set_title(heading, loc="left", fontsize=10)
            axes.grid(alpha=0.3)
            axes.set_xlabel("update")
            axes.margins(x=0.02)
            if field != "learning_rate" and field != "loss":
                axes.set_ylim(bottom=0)
        try:
            with replacing(folder / NAME) as file:
                figure.savefig(file, format="svg", metadata={"Date": None})
        except (NmtError, OSError) as error:
            warn(f"curves are not drawn: {error}")


def _has(record: dict[str, Any], kind: str, field: str) -> bool:
    return record.get("kind") == kind and isinstance(record.get(field), (int, float))
