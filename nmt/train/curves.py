"""``curves.svg``: the training curves, updated while a run trains."""

from __future__ import annotations

import logging
from pathlib import Path

from nmt.io.write import check_inside, write_whole
from nmt.run.journal import read_journal
from nmt.viz.plots import training_curves

logger = logging.getLogger(__name__)

NAME = "curves.svg"


def draw_curves(folder: Path) -> None:
    """Plot the journal of a run; a failure is a warning, so that training continues."""
    try:
        picture = training_curves(read_journal(folder))
        if picture is not None:
            check_inside(folder / NAME, folder)
            write_whole(folder / NAME, picture)
    except Exception as error:
        logger.warning(f"curves are not drawn: {error}")
