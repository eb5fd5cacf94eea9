"""The teacher of the attention: learned from the corpus once, kept in the run directory."""

from __future__ import annotations

import logging

from nmt.align.aligner import ALIGNER, Aligner
from nmt.align.helpers import Helpers
from nmt.data.batches import AlignBatch
from nmt.data.packed import PackedSet
from nmt.distributed import Workers
from nmt.run.directory import Run

logger = logging.getLogger(__name__)


def learn_alignment(
    run: Run, corpus: PackedSet, workers: Workers, helpers: int = 0
) -> AlignBatch | None:
    """What aligns the training pairs of a run, if its configuration wants the attention taught.

    The first worker learns it when the training begins; a training that goes on reads what
    was learned then.

    Args:
        run: keeps it.
        corpus: the training pairs.
        workers: of this training.
        helpers: processes that align in this one's place, if any.

    Raises:
        NmtError: what is kept in the run directory is damaged.
    """
    config = run.config
    if not config.train.guided_alignment:
        return None
    if config.model.attention == "none":
        logger.info("guided alignment: none, this network has no attention to guide")
        return None
    path = run.folder / ALIGNER
    if workers.first and not path.exists():
        Aligner.learn_and_save(path, corpus, config.train.seed)
    workers.wait()  # for the first to have learned it
    return (Helpers(path, helpers) if helpers else Aligner.load(path)).posteriors
