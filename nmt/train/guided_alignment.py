"""Word alignments for guided attention (Chen et al. 2016), computed once per run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmt.align.aligner import Aligner
from nmt.data.alignment import PackedAlignment
from nmt.data.batches import Indices, gather
from nmt.data.packed import PackedSet
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.io.write import file_sha256
from nmt.run.directory import ALIGNER, Run
from nmt.train.start import load_start_aligner

logger = logging.getLogger(__name__)

ALIGNMENT = "alignment"  # folder name in a run directory
_PAIRS_IN_MEMORY = 1 << 16
_BATCH_CELLS = 1 << 18  # target x source pieces aligned together; fits the CPU cache


def add_alignment(run: Run, corpus: PackedSet, workers: Workers) -> PackedSet:
    """Return the corpus with word alignments if the run trains with guided alignment.

    Rank 0 learns the aligner and aligns the corpus. Both results are stored in the run
    directory, and a resumed training reads them. An interrupted pass is repeated.

    Raises:
        NmtError: the aligner in the run directory is damaged, or the disk is full.
    """
    config = run.config
    if not config.train.guided_alignment:
        return corpus
    if config.model.attention == "none":
        logger.info("guided alignment: ignored, this model has no attention")
        return corpus
    if workers.is_main:
        if not (run.folder / ALIGNER).exists():
            start = load_start_aligner(run)
            Aligner.learn_and_save(run.folder / ALIGNER, corpus, config.train.seed, start)
        if _open(run, corpus) is None:
            began = time.monotonic()
            aligner = Aligner.load(run.folder / ALIGNER)
            parts = align_corpus(aligner, corpus)
            PackedAlignment.write(run.folder / ALIGNMENT, _key(run), parts)
            logger.info(f"training pairs aligned: {time.monotonic() - began:.0f} s")
    workers.barrier()  # for rank 0
    alignment = _open(run, corpus)
    if alignment is None:
        raise NmtError(f"{run.folder / ALIGNMENT}: changed while the training started")
    return replace(corpus, alignment=alignment)


def align_corpus(aligner: Aligner, corpus: PackedSet) -> Iterator[PackedAlignment]:
    """Yield the alignments of all sentence pairs, `_PAIRS_IN_MEMORY` pairs at a time."""
    src_lengths, trg_lengths = corpus.src.lengths, corpus.trg.lengths
    for first in range(0, len(corpus), _PAIRS_IN_MEMORY):
        pairs = np.arange(first, min(first + _PAIRS_IN_MEMORY, len(corpus)))
        # Pairs of similar lengths are padded and aligned together.
        order = pairs[np.lexsort((src_lengths[pairs], trg_lengths[pairs]))]
        cells = np.cumsum(src_lengths[order] * trg_lengths[order])
        cuts = np.flatnonzero(np.diff(cells // _BATCH_CELLS)) + 1
        batches = (
            (batch - first, src_lengths[batch], _posteriors(aligner, corpus, batch))
            for batch in np.split(order, cuts)
        )
        yield PackedAlignment.from_batches(batches, len(pairs))


def _posteriors(aligner: Aligner, corpus: PackedSet, pairs: Indices) -> NDArray[np.float32]:
    return aligner.posteriors(*gather(corpus.src, pairs), *gather(corpus.trg, pairs))


def _open(run: Run, corpus: PackedSet) -> PackedAlignment | None:
    return PackedAlignment.open(run.folder / ALIGNMENT, _key(run), len(corpus))


def _key(run: Run) -> dict[str, str]:
    """Identify the corpus and the aligner."""
    aligner: Path = run.folder / ALIGNER
    return {"corpus": run.info.corpus, "aligner": file_sha256(aligner)}
