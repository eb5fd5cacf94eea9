"""Expectation-maximisation over a random part of the packed corpus, held in memory."""

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
_LONGEST = 80  # pieces; longer pairs teach little for what they cost
_BATCH_CELLS = 1 << 18  # target x source pieces worked on at once: small enough for the cache
_MOST_CELLS = 90_000_000  # of all pairs together; 4 bytes each are held
_COUNT_CELLS = 1 << 22  # posteriors gathered before they are counted
_KEY_BLOCK = 1 << 23  # possible pairs of ids marked at once
_JUMP_UNIFORM = 0.1  # share of the jump distribution that is uniform
_DIRICHLET = 0.001  # concentration of the prior on translations: small, so few are likely
_FLOOR = 1e-7  # probability of a translation never seen
_KEPT = 1e-4  # less probable translations, in both directions, are forgotten
_COUNTED = 0.1  # fewer expected links come to less than _KEPT, whatever else stands there


def draw(corpus: PackedSet, pairs: int, seed: int) -> list[PairBatch]:
    """Choose pairs, pad pairs of like lengths together, and leave `slots` at 0."""
    src, trg = corpus.src.lengths, corpus.trg.lengths
    chosen = np.flatnonzero((src > 0) & (trg > 0) & (src <= _LONGEST) & (trg <= _LONGEST))
    if not len(chosen):
        raise NmtError(
            f"no pair to learn word alignment from: none has 1 to {_LONGEST} pieces on both sides"
        )
    chosen = np.random.default_rng(seed).permutation(chosen)[:pairs]
    chosen = chosen[np.cumsum(src[chosen] * trg[chosen]) <= _MOST_CELLS]
    chosen = chosen[np.lexsort((chosen, src[chosen], trg[chosen]))]
    return [_pad(corpus, part) for part in _cut(chosen, src[chosen], trg[chosen])]


def _cut(
    chosen: NDArray[np.int64], src: NDArray[np.int64], trg: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Consecutive sentences whose padded cells are about `_BATCH_CELLS`."""
    begin = 0
    while begin < len(chosen):
        end = begin + max(1, int(_BATCH_CELLS // (src[begin] * trg[begin])))
        widest = src[begin:end].max() * trg[begin:end].max()
        end = begin + max(1, int(_BATCH_CELLS // widest))
        yield chosen[begin:end]
        begin = end


def _pad(corpus: PackedSet, sentences: NDArray[np.int64]) -> PairBatch:
    src, src_mask = gather(corpus.src, sentences, np.int32)
    trg, trg_mask = gather(corpus.trg, sentences, np.int32)
    slots = np.zeros((trg.shape[1], *src.shape), dtype=np.int32)
    return PairBatch(src, trg, src_mask, trg_mask, slots)


class Learner:
    """EM over batches held in memory."""

    def __init__(self, batches: list[PairBatch]) -> None:
        self.batches = batches
        vocab = [
            2 + max(int(ids.max()) for ids in side)  # one more, for all ids never seen
            for side in ((b.src for b in batches), (b.trg for b in batches))
        ]
        src, trg = _enter(batches, *vocab)
        alike = np.ones(len(src), np.float32)
        self.lexicon = Lexicon(
            src,
            trg,
            alike,
            alike,
            np.ones(vocab[1], np.float32),
            np.ones(vocab[0], np.float32),
        )
        self.jumps: Floats | None = None

    def start_from(self, start: Lexicon, jumps: Floats | None) -> None:
        """Take the probabilities of another aligner of the same tokenizers.

        A pair that it does not have gets probability `_KEPT`.
        """
        entries = self.lexicon
        within = (entries.src < len(start.null_src) - 1) & (entries.trg < len(start.null_trg) - 1)
        keys = entries.src.astype(np.int64) * len(start.null_trg) + entries.trg
        known = start.keys()
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        shared = within & (known[places] == keys)
        kept = np.float32(_KEPT)
        entries.forward = np.where(shared, start.forward[places], kept)
        entries.backward = np.where(shared, start.backward[places], kept)
        entries.forward[0] = entries.backward[0] = _FLOOR
        for side in ("null_trg", "null_src"):
            probabilities, size = getattr(start, side), len(getattr(entries, side))
            ids = np.minimum(np.arange(size), len(probabilities) - 1)
            setattr(entries, side, probabilities[ids])
        self.jumps = np.ones((2, 2 * JUMP_RANGE + 1), np.float32) if jumps is None else jumps

    def run(self) -> None:
        """Model 1 first, unless started from another aligner; then the HMMs."""
        if self.jumps is None:
            for _ in range(_MODEL1_ROUNDS):
                # Two models this vague agree on little: what they'd both drop is missed later.
                self._round(agree=False)
                self._forget()
            self.jumps = np.full((2, 2 * JUMP_RANGE + 1), 1.0, np.float32)
        for _ in range(_HMM_ROUNDS):
            self._round(agree=True)

    def _round(self, agree: bool) -> None:
        entries = self.lexicon
        counts = _Counts(len(entries.src), 1 if agree else 2)
        null_trg, null_src = np.zeros(len(entries.null_trg)), np.zeros(len(entries.null_src))
        jumps = np.zeros((2, 2 * JUMP_RANGE + 1))
        for batch in self.batches:
            forward, backward = expect(batch, entries, self.jumps)
            there, back = forward.posteriors, backward.posteriors
            _count_null(null_trg, batch.trg, batch.trg_mask, there)
            _count_null(null_src, batch.src, batch.src_mask, back)
            if forward.jumps is not None and backward.jumps is not None:
                jumps += forward.jumps, backward.jumps
            turned = back.transpose(2, 1, 0)
            counts.add(batch.slots, [there * turned] if agree else [there, turned])
        found = counts.finish()
        entries.forward = _translations(found[0], entries.src, len(entries.null_trg))
        entries.backward = _translations(found[-1], entries.trg, len(entries.null_src))
        entries.null_trg = _nulls(null_trg)
        entries.null_src = _nulls(null_src)
        if self.jumps is not None:
            shares = jumps / np.maximum(jumps.sum(axis=1, keepdims=True), 1e-9)
            uniform = _JUMP_UNIFORM / jumps.shape[1]
            self.jumps = ((1 - _JUMP_UNIFORM) * shares + uniform).astype(np.float32)

    def _forget(self) -> None:
        """Drop entries improbable in both directions; their cells go to entry 0."""
        entries = self.lexicon
        kept = np.maximum(entries.forward, entries.backward) >= _KEPT
        kept[0] = True
        if kept.all():
            return
        places = np.where(kept, np.cumsum(kept, dtype=np.int32) - 1, 0).astype(np.int32)
        for batch in self.batches:
            np.take(places, batch.slots, out=batch.slots)
        entries.src, entries.trg = entries.src[kept], entries.trg[kept]
        entries.forward, entries.backward = entries.forward[kept], entries.backward[kept]


class _Counts:
    """Sums posteriors by entry of the lexicon, many at a time."""

    def __init__(self, entries: int, kinds: int) -> None:
        self._totals = [np.zeros(entries, np.float32) for _ in range(kinds)]
        self._slots: list[NDArray[np.int32]] = []
        self._weights: list[list[Floats]] = [[] for _ in range(kinds)]
        self._waiting = 0

    def add(self, slots: NDArray[np.int32], weights: list[Floats]) -> None:
        self._slots.append(slots.ravel())
        for kind, some in zip(self._weights, weights, strict=True):
            kind.append(some.ravel())
        self._waiting += slots.size
        if self._waiting >= _COUNT_CELLS:
            self._flush()

    def finish(self) -> list[Floats]:
        self._flush()
        return self._totals

    def _flush(self) -> None:
        if not self._waiting:
            return
        slots = np.concatenate(self._slots)
        for total, kind in zip(self._totals, self._weights, strict=True):
            total += np.bincount(slots, np.concatenate(kind), minlength=len(total))
            kind.clear()
        self._slots.clear()
        self._waiting = 0


def _enter(
    batches: list[PairBatch], src_vocab: int, trg_vocab: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the pairs of ids that stand in some sentence pair, and fill in `slots`.

    Done for a block of source ids at a time, so that memory does not grow with the
    product of the vocabularies.

    Returns:
        Source and target id of each entry, entry 0 being (PAD, PAD).
    """
    found_src: list[NDArray[np.int32]] = []
    found_trg: list[NDArray[np.int32]] = []
    entries = 0
    rows = max(1, _KEY_BLOCK // trg_vocab)
    for first in range(0, src_vocab, rows):
        begin, end = first * trg_vocab, min(first + rows, src_vocab) * trg_vocab
        seen = np.zeros(end - begin, dtype=np.bool_)
        seen[0] |= first == 0  # (PAD, PAD)
        for batch in batches:
            keys, inside = _inside(batch, trg_vocab, begin, end)
            seen[keys[inside]] = True
        number = np.cumsum(seen, dtype=np.int32)
        number += np.int32(entries - 1)
        for batch in batches:
            keys, inside = _inside(batch, trg_vocab, begin, end)
            batch.slots[inside] = number[keys[inside]]
        src, trg = np.divmod(np.flatnonzero(seen), trg_vocab)
        found_src.append((src + first).astype(np.int32))
        found_trg.append(trg.astype(np.int32))
        entries += len(src)
    return np.concatenate(found_src), np.concatenate(found_trg)


def _inside(
    batch: PairBatch, trg_vocab: int, begin: int, end: int
) -> tuple[NDArray[np.int64], Mask]:
    keys = pair_keys(batch.src, batch.trg, trg_vocab) - begin
    real = batch.trg_mask.T[:, :, None] & batch.src_mask[None]
    return keys, real & (keys >= 0) & (keys < end - begin)


def _count_null(counts: NDArray[np.float64], ids: Ids, mask: Mask, posteriors: Floats) -> None:
    none = np.maximum(1 - posteriors.sum(axis=2).T, 0)  # [batch, len]
    counts += np.bincount(ids[mask], none[mask], minlength=len(counts))


def _translations(counts: Floats, given: NDArray[np.int32], made: int) -> Floats:
    """p(made | given) of each entry: variational Bayes with a symmetric Dirichlet prior.

    It takes probability from translations counted less than once, the guesses that pile
    up on rare pieces (Johnson 2007; Riley & Gildea 2012).
    """
    spread = _digamma(np.bincount(given, counts).astype(np.float64) + _DIRICHLET * made)
    likely = np.flatnonzero(counts > _COUNTED)
    found = np.full(len(counts), _FLOOR, dtype=np.float32)
    several = _digamma(counts[likely].astype(np.float64) + _DIRICHLET)
    some = np.exp(several - spread[given[likely]])
    found[likely] = np.maximum(some, _FLOOR)
    found[0] = _FLOOR
    return found


def _nulls(counts: NDArray[np.float64]) -> Floats:
    smoothed = counts + 1e-3
    found: Floats = (smoothed / smoothed.sum()).astype(np.float32)
    return found


def _digamma(x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = torch.special.digamma(torch.from_numpy(x)).numpy()
    return found
