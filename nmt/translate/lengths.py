"""The lengths a network is used to, from held-out pairs of the corpus it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np


@dataclass(frozen=True)
class UsualLengths:
    """Lengths of the pairs a network was trained on, in pieces.

    Attributes:
        typical: the median source.
        ratio: `length_ratio` of 98 % of the pairs, lowest and highest.
    """

    typical: int
    ratio: tuple[float, float]

    @classmethod
    def of(cls, src: Sequence[int], trg: Sequence[int]) -> UsualLengths:
        """From the lengths of pairs, at least one, none of them 0."""
        ratios = [length_ratio(a, b) for a, b in zip(src, trg, strict=True)]
        low, high = np.quantile(ratios, [0.01, 0.99]).tolist()
        return cls(int(median(src)), (low, high))


def length_ratio(src_pieces: int, trg_pieces: int) -> float:
    """Target pieces per source piece, drawn to 1 where both are few."""
    return (trg_pieces + 3) / (src_pieces + 3)
