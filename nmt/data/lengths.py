"""Length statistics of the pairs that a network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


@dataclass(frozen=True)
class LengthStatistics:
    """Length statistics of sentence pairs, in pieces.

    Attributes:
        typical: median source length.
        ratio: 1 % and 99 % quantiles of `length_ratio`.
    """

    typical: int
    ratio: tuple[float, float]

    @classmethod
    def of(cls, src: Sequence[int], trg: Sequence[int]) -> LengthStatistics:
        """Return the statistics of at least one pair of positive lengths."""
        ratios = [length_ratio(a, b) for a, b in zip(src, trg, strict=True)]
        low, high = np.quantile(ratios, [0.01, 0.99]).tolist()
        return cls(int(median(src)), (low, high))


def length_ratio(src_pieces: int, trg_pieces: int) -> float:
    """Return target pieces per source piece, smoothed towards 1 for short sentences."""
    return (trg_pieces + 3) / (src_pieces + 3)
