"""Expectation-maximisation of the aligner on a random sample of the packed corpus."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from nmt.align.hmm import JUMP_RANGE, Floats, Ids, Mask
from nmt.align.lexicon import Lexicon, PairBatch, expect, pair_keys
from nmt.data.batches import gather
from nmt.data.packed import PackedSet
from nmt.errors import NmtError

_MODEL1_ROUNDS = 5  # EM iterations of IBM model 1
_HMM_ROUNDS = 5  # EM iterations of the HMM, with agreement
_MAX_LENGTH = 80  # pieces; longer pairs cost more than they contribute
_BATCH_CELLS = 1 << 18  # target x source positions of a batch, to fit into the CPU cache
_MAX_CELLS = 90_000_000  # of all batches together; memory: 4 bytes each
_COUNT_CELLS = 1 << 22  # posteriors collected before they are summed by entry
_KEY_BLOCK = 1 << 23  # keys (pairs of ids) enumerated at a time
_JUMP_UNIFORM = 0.1  # weight of the uniform part of the jump distribution
_DIRICHLET = 0.001  # concentration of the prior on translations; small values give sparse ones
_FLOOR = 1e-7  # probability of an unseen translation
_MIN_PROB = 1e-4  # entries less probable in both directions are removed
_MIN_COUNT = 0.1  # a smaller expected count gives a probability below _MIN_PROB


def sample_pairs(corpus: PackedSet, pairs: int, seed: int) -> list[PairBatch]:
    """Sample at most `pairs` pairs and batch pairs of similar length. `slots` is 0 everywhere.

    Raises:
        NmtError: no pair is short enough.
    """
    src, trg = corpus.src.lengths, corpus.trg.lengths
    chosen = np.flatnonzero((src > 0) & (trg > 0) & (src <= _MAX_LENGTH) & (trg <= _MAX_LENGTH))
    if not len(chosen):
        raise NmtError(
            "no pair to learn word alignment from: "
            f"none has 1 to {_MAX_LENGTH} pieces on both sides"
        )
    chosen = np.random.default_rng(seed).permutation(chosen)[:pairs]
    chosen = chosen[np.cumsum(src[chosen] * trg[chosen]) <= _MAX_CELLS]
    chosen = chosen[np.lexsort((chosen, src[chosen], trg[chosen]))]
    return [_pad(corpus, part) for part in _split(chosen, src[chosen], trg[chosen])]


def _split(
    chosen: NDArray[np.int64], src: NDArray[np.int64], trg: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Yield consecutive sentences of about `_BATCH_CELLS` padded cells together."""
    begin = 0
    while begin < len(chosen):
        end = begin + max(1, int(_BATCH_CELLS // (src[begin] * trg[begin])))
        max_cells = src[begin:end].max() * trg[begin:end].max()
        end = begin + max(1, int(_BATCH_CELLS // max_cells))
        yield chosen[begin:end]
        begin = end


def _pad(corpus: PackedSet, sentences: NDArray[np.int64]) -> PairBatch:
    src, src_mask = gather(corpus.src, sentences, np.int32)
    trg, trg_mask = gather(corpus.trg, sentences, np.int32)
    slots = np.zeros((trg.shape[1], *src.shape), dtype=np.int32)
    return PairBatch(src, trg, src_mask, trg_mask, slots)


class Learner:
    """Expectation-maximisation over batches in memory."""

    def __init__(self, batches: list[PairBatch]) -> None:
        self.batches = batches
        vocab = [
            2 + max(int(ids.max()) for ids in side)  # the last id is used for all unseen ids
            for side in ((b.src for b in batches), (b.trg for b in batches))
        ]
        src, trg = _number_pairs(batches, *vocab)
        uniform = np.ones(len(src), np.float32)
        self.lexicon = Lexicon(
            src,
            trg,
            uniform,
            uniform,
            np.ones(vocab[1], np.float32),
            np.ones(vocab[0], np.float32),
        )
        self.jumps: Floats | None = None

    def start_from(self, start: Lexicon, jumps: Floats | None) -> None:
        """Initialise with another aligner of the same tokenizers.

        Pairs that it does not contain get probability `_MIN_PROB`.
        """
        entries = self.lexicon
        in_vocab = (entries.src < len(start.null_src) - 1) & (entries.trg < len(start.null_trg) - 1)
        keys = entries.src.astype(np.int64) * len(start.null_trg) + entries.trg
        start_keys = start.keys()
        slots = np.minimum(np.searchsorted(start_keys, keys), len(start_keys) - 1)
        shared = in_vocab & (start_keys[slots] == keys)
        min_prob = np.float32(_MIN_PROB)
        entries.forward = np.where(shared, start.forward[slots], min_prob)
        entries.backward = np.where(shared, start.backward[slots], min_prob)
        entries.forward[0] = entries.backward[0] = _FLOOR
        for side in ("null_trg", "null_src"):
            probs, size = getattr(start, side), len(getattr(entries, side))
            setattr(entries, side, probs[np.minimum(np.arange(size), len(probs) - 1)])
        self.jumps = np.ones((2, 2 * JUMP_RANGE + 1), np.float32) if jumps is None else jumps

    def run(self) -> None:
        """Learn model 1, then the HMMs. A start from another aligner replaces model 1."""
        if self.jumps is None:
            for _ in range(_MODEL1_ROUNDS):
                # Without agreement: the posteriors of model 1 are too diffuse for it.
                self._iterate(agree=False)
                self._prune()
            self.jumps = np.full((2, 2 * JUMP_RANGE + 1), 1.0, np.float32)
        for _ in range(_HMM_ROUNDS):
            self._iterate(agree=True)

    def _iterate(self, agree: bool) -> None:
        """Run one EM iteration; with `agree` both directions count the product of posteriors."""
        entries = self.lexicon
        counts = _Counts(len(entries.src), 1 if agree else 2)
        null_trg, null_src = np.zeros(len(entries.null_trg)), np.zeros(len(entries.null_src))
        jumps = np.zeros((2, 2 * JUMP_RANGE + 1))
        for batch in self.batches:
            forward, backward = expect(batch, entries, self.jumps)
            _count_null(null_trg, batch.trg, batch.trg_mask, forward.posteriors)
            _count_null(null_src, batch.src, batch.src_mask, backward.posteriors)
            if forward.jumps is not None and backward.jumps is not None:
                jumps += forward.jumps, backward.jumps
            posteriors = forward.posteriors, backward.posteriors.transpose(2, 1, 0)
            counts.add(batch.slots, [np.multiply(*posteriors)] if agree else [*posteriors])
        totals = counts.finish()
        entries.forward = _translations(totals[0], entries.src, len(entries.null_trg))
        entries.backward = _translations(totals[-1], entries.trg, len(entries.null_src))
        entries.null_trg = _null_probs(null_trg)
        entries.null_src = _null_probs(null_src)
        if self.jumps is not None:
            fractions = jumps / np.maximum(jumps.sum(axis=1, keepdims=True), 1e-9)
            uniform = _JUMP_UNIFORM / jumps.shape[1]
            self.jumps = ((1 - _JUMP_UNIFORM) * fractions + uniform).astype(np.float32)

    def _prune(self) -> None:
        """Remove entries improbable in both directions. Their cells then use entry 0."""
        entries = self.lexicon
        kept = np.maximum(entries.forward, entries.backward) >= _MIN_PROB
        kept[0] = True
        if kept.all():
            return
        new_slots = np.where(kept, np.cumsum(kept, dtype=np.int32) - 1, 0).astype(np.int32)
        for batch in self.batches:
            np.take(new_slots, batch.slots, out=batch.slots)
        entries.src, entries.trg = entries.src[kept], entries.trg[kept]
        entries.forward, entries.backward = entries.forward[kept], entries.backward[kept]


class _Counts:
    """Sums of posteriors by lexicon entry, updated for many batches at a time."""

    def __init__(self, entries: int, kinds: int) -> None:
        self._totals = [np.zeros(entries, np.float32) for _ in range(kinds)]
        self._slots: list[NDArray[np.int32]] = []
        self._weights: list[list[Floats]] = [[] for _ in range(kinds)]
        self._pending = 0  # cells

    def add(self, slots: NDArray[np.int32], weights: list[Floats]) -> None:
        self._slots.append(slots.ravel())
        for kind, values in zip(self._weights, weights, strict=True):
            kind.append(values.ravel())
        self._pending += slots.size
        if self._pending >= _COUNT_CELLS:
            self._flush()

    def finish(self) -> list[Floats]:
        self._flush()
        return self._totals

    def _flush(self) -> None:
        if not self._pending:
            return
        slots = np.concatenate(self._slots)
        for total, kind in zip(self._totals, self._weights, strict=True):
            total += np.bincount(slots, np.concatenate(kind), minlength=len(total))
            kind.clear()
        self._slots.clear()
        self._pending = 0


def _number_pairs(
    batches: list[PairBatch], src_vocab: int, trg_vocab: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the pairs of ids that co-occur in a sentence pair, and fill in `slots`.

    Processes a block of source ids at a time, so that memory does not grow with the product
    of the vocabularies.

    Returns:
        Source and target id of each entry; entry 0 is (PAD, PAD).
    """
    src_ids: list[NDArray[np.int32]] = []
    trg_ids: list[NDArray[np.int32]] = []
    entries = 0
    rows = max(1, _KEY_BLOCK // trg_vocab)
    for first in range(0, src_vocab, rows):
        begin, end = first * trg_vocab, min(first + rows, src_vocab) * trg_vocab
        seen = np.zeros(end - begin, dtype=np.bool_)
        seen[0] |= first == 0  # (PAD, PAD)
        for batch in batches:
            keys, inside = _keys_in_block(batch, trg_vocab, begin, end)
            seen[keys[inside]] = True
        number = np.cumsum(seen, dtype=np.int32)
        number += np.int32(entries - 1)
        for batch in batches:
            keys, inside = _keys_in_block(batch, trg_vocab, begin, end)
            batch.slots[inside] = number[keys[inside]]
        src, trg = np.divmod(np.flatnonzero(seen), trg_vocab)
        src_ids.append((src + first).astype(np.int32))
        trg_ids.append(trg.astype(np.int32))
        entries += len(src)
    return np.concatenate(src_ids), np.concatenate(trg_ids)


def _keys_in_block(
    batch: PairBatch, trg_vocab: int, begin: int, end: int
) -> tuple[NDArray[np.int64], Mask]:
    """Return the keys of all cells relative to `begin`, and which of them are in the block."""
    keys = pair_keys(batch.src, batch.trg, trg_vocab) - begin
    real = batch.trg_mask.T[:, :, None] & batch.src_mask[None]
    return keys, real & (keys >= 0) & (keys < end - begin)


def _count_null(counts: NDArray[np.float64], ids: Ids, mask: Mask, posteriors: Floats) -> None:
    """Add the probability of being unaligned to the count of each observed id."""
    unaligned = np.maximum(1 - posteriors.sum(axis=2).T, 0)  # [batch, len]
    counts += np.bincount(ids[mask], unaligned[mask], minlength=len(counts))


def _translations(counts: Floats, conditions: NDArray[np.int32], vocab: int) -> Floats:
    """Return p(observed | condition) of each entry: variational Bayes, symmetric Dirichlet prior.

    The prior lowers the probability of translations with an expected count below 1, which
    plain EM overestimates for rare pieces (Johnson 2007; Riley & Gildea 2012).

    Args:
        counts: expected count of each entry, `[entries]`.
        conditions: id conditioned on of each entry, `[entries]`.
        vocab: number of observed ids.
    """
    totals = _digamma(np.bincount(conditions, counts).astype(np.float64) + _DIRICHLET * vocab)
    likely = np.flatnonzero(counts > _MIN_COUNT)
    probs = np.full(len(counts), _FLOOR, dtype=np.float32)
    numerators = _digamma(counts[likely].astype(np.float64) + _DIRICHLET)
    probs[likely] = np.maximum(np.exp(numerators - totals[conditions[likely]]), _FLOOR)
    probs[0] = _FLOOR
    return probs


def _null_probs(counts: NDArray[np.float64]) -> Floats:
    smoothed = counts + 1e-3
    probs: Floats = (smoothed / smoothed.sum()).astype(np.float32)
    return probs


def _digamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = torch.special.digamma(torch.from_numpy(x)).numpy()
    return values
