"""``curves.svg``: a training at a glance, drawn while it runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from nmt.checkpoint import read_journal
from nmt.errors import NmtError
from nmt.evaluate.charts import curves
from nmt.runtime import warn
from nmt.text import write_whole

NAME = "curves.svg"


def plots_are_possible() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(folder: Path) -> None:
    """Draw the journal of a run.

    A picture that can't be written is lost with a warning: training is worth more.
    """
    picture = curves(read_journal(folder))
    if picture is None:
        return
    try:
        write_whole(folder / NAME, picture)
    except (NmtError, OSError) as error:
        warn(f"curves are not drawn: {error}")
