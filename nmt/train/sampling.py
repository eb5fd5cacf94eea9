"""Subword sampling: each time a sentence is seen, it may be cut into other pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.data.batches import Indices
from nmt.data.packed import PackedSet, Side
from nmt.data.tokenizer import Tokenizer
from nmt.run.directory import Run

_STREAM = 1  # another one than that which plans the epoch of the same number
_REMEMBERED = 100_000  # sentences of both sides, about a kilobyte each; finding them takes time
_MOST = 16  # segmentations drawn from; more cost time and are hardly ever drawn


class SubwordSampler:
    """Draws a segmentation x of a sentence with probability proportional to P(x)^alpha.

    Subword regularisation (Kudo 2018, section 3.1) over the best segmentations of the
    unigram model. What is drawn follows from (seed, draw) alone, not from SentencePiece's own
    random state, so that a training that goes on draws what it would have drawn.

    Args:
        src: tokenizer of the source side.
        trg: of the target side.
        alpha: 0 draws evenly, a large one nearly always the best.
        seed: of the training.
    """

    def __init__(self, src: Tokenizer, trg: Tokenizer, alpha: float, seed: int) -> None:
        self.tokenizers = (src, trg)
        self.log_probs = (src.piece_log_probs(), trg.piece_log_probs())
        self.alpha, self.seed = alpha, seed
        self._known: dict[tuple[int, int], _Ways] = {}  # by side and sentence

    def __call__(self, corpus: PackedSet, sentences: Indices, draw: int) -> PackedSet:
        """These sentences, cut anew, in the order given.

        Args:
            corpus: to take them from, the same at every call.
            sentences: their numbers.
            draw: number of the draw; another one gives other pieces.
        """
        chance = np.random.default_rng([self.seed, draw, _STREAM]).random((2, len(sentences)))
        src, trg = (
            self._cut(side, sentences, number, chance[number])
            for number, side in enumerate((corpus.src, corpus.trg))
        )
        return PackedSet(src, trg)

    def _cut(
        self, side: Side, sentences: Indices, number: int, chance: NDArray[np.float64]
    ) -> Side:
        cut = []
        for sentence, luck in zip(sentences.tolist(), chance.tolist(), strict=True):
            ways = self._known.get((number, sentence))
            if ways is None:
                ways = self._ways(side[sentence].tolist(), number)
                if len(self._known) < _REMEMBERED:
                    self._known[number, sentence] = ways
            cut.append(ways.draw(luck))
        ends = np.cumsum([len(ids) for ids in cut])
        return Side(np.concatenate(cut), ends)

    def _ways(self, ids: list[int], number: int) -> _Ways:
        found = self.tokenizers[number].segmentations(ids, _MOST)
        log_probs = self.log_probs[number]
        weights = self.alpha * np.array([log_probs[way].sum() for way in found])
        share = np.cumsum(np.exp(weights - weights.max()))
        ends = np.cumsum([len(way) for way in found])
        return _Ways(np.concatenate(found).astype(np.int32), ends, share)


@dataclass(frozen=True)
class _Ways:
    """The segmentations of a sentence, end to end, and how likely each is.

    Attributes:
        ids: of all of them.
        ends: one past the last id of each.
        share: weights added up.
    """

    ids: NDArray[np.int32]
    ends: Indices
    share: NDArray[np.float64]

    def draw(self, luck: float) -> NDArray[np.int32]:
        """One of them, by a number between 0 and 1."""
        way = int(np.searchsorted(self.share, luck * self.share[-1], side="right"))
        return self.ids[self.ends[way - 1] if way else 0 : self.ends[way]]


def make_sampler(run: Run) -> SubwordSampler | None:
    """What cuts the training sentences of a run anew, if its configuration asks for that."""
    alpha = run.config.train.subword_sampling
    if alpha is None:
        return None
    return SubwordSampler(run.src, run.trg, alpha, run.config.train.seed)
