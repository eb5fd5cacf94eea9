"""``curves.svg``: a training at a glance, drawn while it runs."""

from __future__ import annotations

import logging
from pathlib import Path

from nmt.errors import NmtError
from nmt.evaluate.charts import check_installed, curves
from nmt.io.write import write_whole
from nmt.run.journal import read_journal

logger = logging.getLogger(__name__)

NAME = "curves.svg"


def plots_are_possible() -> bool:
    """Whether matplotlib is installed."""
    try:
        check_installed()
    except NmtError:
        return False
    return True


def draw_curves(folder: Path) -> None:
    """Draw the journal of a run.

    A picture that can't be written is lost with a warning: training is worth more.
    """
    try:
        picture = curves(read_journal(folder))
        if picture is not None:
            write_whole(folder / NAME, picture)
    except Exception as error:
        logger.warning(f"curves are not drawn: {error}")
