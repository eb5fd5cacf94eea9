"""Translation probabilities of pieces, and what both directions make of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.align.hmm import Expected, Floats, Ids, Mask, hmm, model1


@dataclass(frozen=True)
class PairBatch:
    """Some sentence pairs, padded.

    Attributes:
        src: `[batch, src_len]`.
        trg: `[batch, trg_len]`.
        src_mask: `[batch, src_len]`.
        trg_mask: `[batch, trg_len]`.
        slots: where the pair of ids of each cell stands in the lexicon, 0 if nowhere,
            `[trg_len, batch, src_len]`: target first, since time runs along it.
    """

    src: Ids
    trg: Ids
    src_mask: Mask
    trg_mask: Mask
    slots: NDArray[np.int32]


@dataclass
class Lexicon:
    """Which piece translates which, in both directions.

    Attributes:
        src: source id of each entry, `[entries]`; entry 0 stands for every pair never seen.
        trg: target id of each entry, `[entries]`; sorted by source, then target.
        forward: p(target piece | source piece), `[entries]`.
        backward: p(source piece | target piece), `[entries]`.
        null_trg: p(target piece | none), `[trg_vocab]`; the last id is that of no piece.
        null_src: p(source piece | none), `[src_vocab]`; likewise.
    """

    src: NDArray[np.int32]
    trg: NDArray[np.int32]
    forward: Floats
    backward: Floats
    null_trg: Floats
    null_src: Floats

    def keys(self) -> NDArray[np.int64]:
        """One number for each entry, ascending."""
        return self.src.astype(np.int64) * len(self.null_trg) + self.trg


def pair_keys(src: Ids, trg: Ids, trg_vocab: int) -> NDArray[np.int64]:
    """One number for each pair of ids, `[trg_len, batch, src_len]`."""
    keys: NDArray[np.int64] = (
        src.astype(np.int64)[None] * trg_vocab + trg.T.astype(np.int64)[:, :, None]
    )
    return keys


def expect(batch: PairBatch, lexicon: Lexicon, jumps: Floats | None) -> tuple[Expected, Expected]:
    """Both directions: `[trg_len, batch, src_len]` and `[src_len, batch, trg_len]`."""
    real = batch.trg_mask.T[:, :, None] & batch.src_mask[None]
    forward = np.where(real, lexicon.forward[batch.slots], np.float32(0))
    backward = np.where(real, lexicon.backward[batch.slots], np.float32(0))
    along_src, along_trg = (None, None) if jumps is None else jumps
    return (
        _one_direction(
            forward, _null(lexicon.null_trg, batch.trg, batch.trg_mask), batch.src_mask, along_src
        ),
        _one_direction(
            np.ascontiguousarray(backward.transpose(2, 1, 0)),
            _null(lexicon.null_src, batch.src, batch.src_mask),
            batch.trg_mask,
            along_trg,
        ),
    )


def _null(table: Floats, ids: Ids, mask: Mask) -> Floats:
    """p(piece | none), 1 on padding so that it changes nothing, `[len, batch]`."""
    found: Floats = np.where(mask, table[ids], np.float32(1)).T
    return found


def _one_direction(emission: Floats, null: Floats, mask: Mask, jumps: Floats | None) -> Expected:
    if jumps is None:
        return Expected(model1(emission, null, mask), None)
    return hmm(emission, null, mask, jumps)
