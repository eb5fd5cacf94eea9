"""Translation probabilities of pieces, and the E-step for a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.align.hmm import Expectations, Floats, Ids, Mask, hmm, model1


@dataclass(frozen=True)
class PairBatch:
    """A padded batch of sentence pairs.

    Attributes:
        src: `[batch, src_len]`.
        trg: `[batch, trg_len]`.
        src_mask: `[batch, src_len]`.
        trg_mask: `[batch, trg_len]`.
        slots: index of each cell's pair of ids in the lexicon, 0 if it has no entry,
            `[trg_len, batch, src_len]`.
    """

    src: Ids
    trg: Ids
    src_mask: Mask
    trg_mask: Mask
    slots: NDArray[np.int32]


@dataclass
class Lexicon:
    """Translation probabilities of pairs of ids in both directions.

    Attributes:
        src: source id of each entry, `[entries]`. Entry 0 is used for all unseen pairs.
        trg: target id of each entry, `[entries]`. Entries are sorted by source, then target.
        forward: p(target piece | source piece), `[entries]`.
        backward: p(source piece | target piece), `[entries]`.
        null_trg: p(target piece | unaligned), `[trg_vocab]`. The last id is used for all
            unseen ids.
        null_src: p(source piece | unaligned), `[src_vocab]`; likewise.
    """

    src: NDArray[np.int32]
    trg: NDArray[np.int32]
    forward: Floats
    backward: Floats
    null_trg: Floats
    null_src: Floats

    def keys(self) -> NDArray[np.int64]:
        """Return one integer per entry, ascending; see `pair_keys`."""
        return self.src.astype(np.int64) * len(self.null_trg) + self.trg


def pair_keys(src: Ids, trg: Ids, trg_vocab: int) -> NDArray[np.int64]:
    """Return src * trg_vocab + trg for each pair of positions, `[trg_len, batch, src_len]`."""
    keys: NDArray[np.int64] = (
        src.astype(np.int64)[None] * trg_vocab + trg.T.astype(np.int64)[:, :, None]
    )
    return keys


def expect(
    batch: PairBatch, lexicon: Lexicon, jumps: Floats | None
) -> tuple[Expectations, Expectations]:
    """Return the expectations of both directions: the HMM's, or model 1's without `jumps`.

    Shapes of the posteriors: `[trg_len, batch, src_len]` and `[src_len, batch, trg_len]`.
    """
    real = batch.trg_mask.T[:, :, None] & batch.src_mask[None]
    forward = np.where(real, lexicon.forward[batch.slots], np.float32(0))
    backward = np.where(real, lexicon.backward[batch.slots], np.float32(0))
    src_jumps, trg_jumps = (None, None) if jumps is None else jumps
    return (
        _expect_direction(
            forward, _null(lexicon.null_trg, batch.trg, batch.trg_mask), batch.src_mask, src_jumps
        ),
        _expect_direction(
            np.ascontiguousarray(backward.transpose(2, 1, 0)),
            _null(lexicon.null_src, batch.src, batch.src_mask),
            batch.trg_mask,
            trg_jumps,
        ),
    )


def _null(table: Floats, ids: Ids, mask: Mask) -> Floats:
    """Return p(piece | unaligned), 1 on padding, `[len, batch]`."""
    probs: Floats = np.where(mask, table[ids], np.float32(1)).T
    return probs


def _expect_direction(
    emission: Floats, null: Floats, mask: Mask, jumps: Floats | None
) -> Expectations:
    if jumps is None:
        return Expectations(model1(emission, null, mask), None)
    return hmm(emission, null, mask, jumps)
