"""A statistical word aligner over the pieces of the packed corpus: who translates whom.

Two hidden Markov models (Vogel, Ney & Tillmann 1996), one in each direction, learned
together by agreement (Liang, Taskar & Klein 2006) after IBM model 1 (Brown et al. 1993).
In the forward model every target piece is made by one source piece or by none; which one
depends on where the piece before it came from. The backward model is the same with the
sides swapped. Nothing is drawn by hand: the links come from the corpus alone.

It is the teacher of guided attention (Chen et al. 2016): see `Aligner.posteriors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nmt.corpus import PackedSet, Side
from nmt.errors import NmtError
from nmt.symbols import BOS, EOS, PAD
from nmt.text import replacing

FORMAT = 1

Floats = NDArray[np.float32]
Ids = NDArray[Any]
Mask = NDArray[np.bool_]

_LONGEST = 80  # pieces; longer pairs teach little for what they cost
_BATCH_CELLS = 1 << 18  # target x source pieces worked on at once: small enough for the cache
_MOST_CELLS = 90_000_000  # of all pairs together; 4 bytes each are held
_COUNT_CELLS = 1 << 23  # posteriors gathered before they are counted
_KEY_BLOCK = 1 << 25  # possible pairs of ids marked at once
_NULL = 0.2  # prior probability that a piece is aligned to none
_JUMP_RANGE = 100  # farther jumps count as this far
_JUMP_UNIFORM = 0.1  # share of the jump distribution that is uniform
_DIRICHLET = 0.01  # concentration of the prior on translations: small, so few are likely
_FLOOR = 1e-7  # probability of a translation never seen
_KEPT = 1e-4  # less probable translations, in both directions, are forgotten
_COUNTED = 0.1  # fewer expected links come to less than _KEPT, whatever else stands there
_TINY = np.float32(1e-30)


@dataclass(frozen=True)
class _Batch:
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
        null_trg: p(target piece | none), `[trg_vocab]`.
        null_src: p(source piece | none), `[src_vocab]`.
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


class Aligner:
    """Learned translations and jumps, and what follows from them for a pair.

    Attributes:
        lexicon: translation probabilities.
        jumps: how likely the next piece comes from d positions further on, from
            -_JUMP_RANGE to _JUMP_RANGE: along the source, then along the target,
            `[2, 2*range + 1]`; None for model 1 alone.
    """

    def __init__(self, lexicon: Lexicon, jumps: Floats | None) -> None:
        self.lexicon = lexicon
        self.jumps = jumps
        self._keys = lexicon.keys()

    @classmethod
    def learn(
        cls,
        corpus: PackedSet,
        *,
        pairs: int = 200_000,
        seed: int = 1,
        model1_rounds: int = 5,
        hmm_rounds: int = 5,
        agree: bool = True,
    ) -> Aligner:
        """Learn from a random part of a corpus; the same arguments give the same bytes.

        Args:
            corpus: packed ids.
            pairs: at most so many pairs are drawn, fewer if they are long.
            seed: of the draw.
            model1_rounds: rounds of EM without positions.
            hmm_rounds: rounds with jumps; 0 leaves model 1.
            agree: whether each direction counts only what the other believes as well.

        Raises:
            NmtError: no pair is short enough to learn from.
        """
        return _Learner(_draw(corpus, pairs, seed), agree).run(model1_rounds, hmm_rounds)

    def posteriors(self, src: Ids, src_mask: Mask, trg: Ids, trg_mask: Mask) -> Floats:
        """How likely each target piece and each source piece translate one another.

        The geometric mean of what both directions believe, and no row above 1. What is
        missing to 1 is the belief that the piece has no counterpart. BOS, EOS and padding
        are never aligned: their rows and columns are 0.

        Args:
            src: `[batch, src_len]`.
            src_mask: True on real pieces, `[batch, src_len]`.
            trg: `[batch, trg_len]`.
            trg_mask: True on real pieces, `[batch, trg_len]`.

        Returns:
            `[batch, trg_len, src_len]`; row sums between 0 and 1.
        """
        forward, backward = self.directions(src, src_mask, trg, trg_mask)
        both = np.sqrt(forward * backward)
        joined: Floats = both / np.maximum(both.sum(axis=2, keepdims=True), 1)
        return joined

    def directions(
        self, src: Ids, src_mask: Mask, trg: Ids, trg_mask: Mask
    ) -> tuple[Floats, Floats]:
        """What each direction believes alone, both `[batch, trg_len, src_len]`.

        Rows of the first and columns of the second sum to 1 or less.
        """
        src_mask, trg_mask = src_mask & _aligned(src), trg_mask & _aligned(trg)
        batch = _Batch(src, trg, src_mask, trg_mask, self._slots(src, trg))
        forward, backward = (side.posteriors for side in _expect(batch, self.lexicon, self.jumps))
        return forward.transpose(1, 0, 2), backward.transpose(1, 2, 0)

    def _slots(self, src: Ids, trg: Ids) -> NDArray[np.int32]:
        keys = _keys(src, trg, len(self.lexicon.null_trg))
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[found] == keys, found, 0).astype(np.int32)

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {
            "src": self.lexicon.src,
            "trg": self.lexicon.trg,
            "forward": self.lexicon.forward,
            "backward": self.lexicon.backward,
            "null_trg": self.lexicon.null_trg,
            "null_src": self.lexicon.null_src,
        }
        if self.jumps is not None:
            tensors["jumps"] = self.jumps
        head = {"format": FORMAT, "sha256": _digest(tensors)}
        with replacing(path) as file:
            # One entry only: safetensors writes several in no fixed order.
            file.write(save(tensors, {"nmt": json.dumps(head)}))

    @classmethod
    def load(cls, path: Path) -> Aligner:
        """Read what `save` wrote.

        Raises:
            NmtError: missing, damaged, or of another format.
        """
        try:
            data = path.read_bytes()
            tensors = load(data)
            head = _metadata(data)
        except (OSError, ValueError, SafetensorError) as error:
            raise NmtError(f"{path}: missing or damaged ({error})") from error
        if head.get("format") != FORMAT:
            raise NmtError(
                f"{path}: format {head.get('format')}, but this program reads {FORMAT}",
                "learn the aligner again with this version",
            )
        if head.get("sha256") != _digest(tensors):
            raise NmtError(f"{path}: damaged: it does not have the checksum recorded")
        jumps = tensors.pop("jumps", None)
        return cls(Lexicon(**tensors), jumps)


def _metadata(data: bytes) -> dict[str, Any]:
    """What `Aligner.save` noted in the head; empty for a file of something else."""
    length = int.from_bytes(data[:8], "little")
    noted = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get("nmt", "{}")
    found: dict[str, Any] = json.loads(noted)
    return found


def _digest(tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _aligned(ids: Ids) -> Mask:
    found: Mask = (ids != PAD) & (ids != BOS) & (ids != EOS)
    return found


def _keys(src: Ids, trg: Ids, trg_vocab: int) -> NDArray[np.int64]:
    """One number for each pair of ids, `[trg_len, batch, src_len]`."""
    keys: NDArray[np.int64] = (
        src.astype(np.int64)[None] * trg_vocab + trg.T.astype(np.int64)[:, :, None]
    )
    return keys


# -- drawing pairs --------------------------------------------------------------------------


def _draw(corpus: PackedSet, pairs: int, seed: int) -> list[_Batch]:
    """Choose pairs, pad pairs of like lengths together, and leave `slots` at 0."""
    src, trg = corpus.src.lengths, corpus.trg.lengths
    chosen = np.flatnonzero((src > 0) & (trg > 0) & (src <= _LONGEST) & (trg <= _LONGEST))
    if not len(chosen):
        raise NmtError(
            f"no pair to learn word alignment from: none has 1 to {_LONGEST} pieces on both sides"
        )
    chosen = np.random.default_rng(seed).permutation(chosen)[:pairs]
    chosen = chosen[np.cumsum(src[chosen] * trg[chosen]) <= max(_MOST_CELLS, _LONGEST**2)]
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


def _pad(corpus: PackedSet, sentences: NDArray[np.int64]) -> _Batch:
    src, src_mask = _gather(corpus.src, sentences)
    trg, trg_mask = _gather(corpus.trg, sentences)
    slots = np.zeros((trg.shape[1], *src.shape), dtype=np.int32)
    return _Batch(src, trg, src_mask, trg_mask, slots)


def _gather(side: Side, sentences: NDArray[np.int64]) -> tuple[Ids, Mask]:
    ends = side.ends[sentences]
    begins = np.where(sentences > 0, side.ends[sentences - 1], 0)
    columns = np.arange((ends - begins).max())
    mask: Mask = columns < (ends - begins)[:, None]
    padded = np.full(mask.shape, PAD, dtype=np.int32)
    padded[mask] = side.ids[(begins[:, None] + columns)[mask]]
    return padded, mask


# -- expectation ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Expected:
    """What one direction believes about a batch.

    Attributes:
        posteriors: p(the piece was made by this one), `[made, batch, by]`.
        jumps: expected number of jumps of each distance, `[2*range + 1]`, or None.
    """

    posteriors: Floats
    jumps: NDArray[np.float64] | None


def _expect(batch: _Batch, lexicon: Lexicon, jumps: Floats | None) -> tuple[_Expected, _Expected]:
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
    known = np.minimum(ids, len(table) - 1)
    found: Floats = np.where(mask, table[known], np.float32(1)).T
    return found


def _one_direction(emission: Floats, null: Floats, mask: Mask, jumps: Floats | None) -> _Expected:
    if jumps is None:
        return _Expected(_model1(emission, null, mask), None)
    return _hmm(emission, null, mask, jumps)


def _model1(emission: Floats, null: Floats, mask: Mask) -> Floats:
    prior = (1 - _NULL) / np.maximum(mask.sum(axis=1, dtype=np.float32), 1)  # [batch]
    scored = emission * prior[:, None]
    total = scored.sum(axis=2) + _NULL * null
    found: Floats = scored / np.maximum(total, _TINY)[:, :, None]
    return found


def _hmm(emission: Floats, null: Floats, mask: Mask, jumps: Floats) -> _Expected:
    """Forward-backward, time along the made side, states along the other.

    Each state has a twin that makes a piece out of nothing and remembers the position
    (Och & Ney 2003, section 2.2). Both leave for the same places, so one beta serves both.

    Args:
        emission: p(piece | by), 0 on padding, `[made, batch, by]`.
        null: p(piece | none), 1 on padding, `[made, batch]`.
        mask: real states, `[batch, by]`.
        jumps: weight of each distance, `[2*range + 1]`.
    """
    steps, _, states = emission.shape
    offsets = _offsets(states)
    move = jumps[offsets]  # [from, to]
    real = mask.astype(np.float32)
    leave = (1 - np.float32(_NULL)) * real / np.maximum(real @ move.T, _TINY)
    start = real / np.maximum(real.sum(axis=1, keepdims=True), 1)

    alpha = np.empty_like(emission)  # made by this state
    left = np.empty_like(emission)  # in this state or its twin, times what `leave` makes of it
    scale = np.empty_like(null)
    moved, stayed = start * np.float32(1 - _NULL), start * np.float32(_NULL)
    for step in range(steps):
        made = moved * emission[step]
        none = stayed * null[step][:, None]
        here = made + none
        scale[step] = 1 / np.maximum(here.sum(axis=1), _TINY)
        alpha[step] = made * scale[step][:, None]
        here *= scale[step][:, None]
        left[step] = here * leave
        moved, stayed = left[step] @ move, here * np.float32(_NULL)

    arrived = emission * scale[:, :, None]  # becomes emission * beta / scale
    beta = real
    for step in range(steps - 1, -1, -1):
        alpha[step] *= beta
        arrived[step] *= beta
        stay = np.float32(_NULL) * (null[step] * scale[step])[:, None] * beta
        beta = leave * (arrived[step] @ move.T) + stay
    pairs = left[:-1].reshape(-1, states).T @ arrived[1:].reshape(-1, states)
    counted = np.bincount(offsets.ravel(), (pairs * move).ravel(), minlength=2 * _JUMP_RANGE + 1)
    return _Expected(alpha, counted.astype(np.float64))


def _offsets(states: int) -> NDArray[np.int64]:
    """The place of each jump in a table of jumps, `[from, to]`."""
    places = np.arange(states)
    far = np.clip(places[None, :] - places[:, None], -_JUMP_RANGE, _JUMP_RANGE)
    found: NDArray[np.int64] = far + _JUMP_RANGE
    return found


# -- maximisation ---------------------------------------------------------------------------


class _Learner:
    """EM over batches held in memory."""

    def __init__(self, batches: list[_Batch], agree: bool) -> None:
        self.batches = batches
        self.agree = agree
        vocab = [
            1 + max(int(ids.max()) for ids in side)
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

    def run(self, model1_rounds: int, hmm_rounds: int) -> Aligner:
        for number in range(model1_rounds):
            # The first round counts what stands together; nothing to agree on yet.
            self._round(self.agree and number > 0)
            self._forget()
        for _ in range(hmm_rounds):
            if self.jumps is None:
                self.jumps = np.full((2, 2 * _JUMP_RANGE + 1), 1.0, np.float32)
            self._round(self.agree)
        return Aligner(self.lexicon, self.jumps)

    def _round(self, agree: bool) -> None:
        entries = self.lexicon
        counts = _Counts(len(entries.src), 1 if agree else 2)
        null_trg, null_src = np.zeros(len(entries.null_trg)), np.zeros(len(entries.null_src))
        jumps = np.zeros((2, 2 * _JUMP_RANGE + 1))
        for batch in self.batches:
            forward, backward = _expect(batch, entries, self.jumps)
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
            shares = jumps / np.maximum(jumps.sum(axis=1, keepdims=True), _TINY)
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
    batches: list[_Batch], src_vocab: int, trg_vocab: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the pairs of ids that stand in some sentence pair, and fill in `slots`.

    Done for a block of source ids at a time, so that memory does not grow with the
    product of the vocabularies.

    Returns:
        Source and target id of each entry, entry 0 being (PAD, PAD).
    """
    found: list[NDArray[np.int64]] = []
    entries = 0
    rows = max(1, _KEY_BLOCK // trg_vocab)
    for first in range(0, src_vocab, rows):
        begin, end = first * trg_vocab, min(first + rows, src_vocab) * trg_vocab
        seen = np.zeros(end - begin, dtype=np.bool_)
        seen[0] |= first == 0  # (PAD, PAD)
        for batch in batches:
            keys, inside = _inside(batch, trg_vocab, begin, end)
            seen[keys[inside]] = True
        number = np.cumsum(seen, dtype=np.int32) + np.int32(entries - 1)
        for batch in batches:
            keys, inside = _inside(batch, trg_vocab, begin, end)
            batch.slots[inside] = number[keys[inside]]
        found.append(np.flatnonzero(seen) + begin)
        entries += len(found[-1])
    keys = np.concatenate(found)
    return (keys // trg_vocab).astype(np.int32), (keys % trg_vocab).astype(np.int32)


def _inside(batch: _Batch, trg_vocab: int, begin: int, end: int) -> tuple[NDArray[np.int64], Mask]:
    keys = _keys(batch.src, batch.trg, trg_vocab) - begin
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
    """The derivative of log gamma for x > 0, to about 1e-8: recurrence, then a series."""
    shift = np.zeros_like(x)
    for step in range(6):
        shift += 1 / (x + step)
    y = x + 6
    square = 1 / (y * y)
    series = square * (1 / 12 - square * (1 / 120 - square / 252))
    found: NDArray[np.float64] = np.log(y) - 0.5 / y - series - shift
    return found
