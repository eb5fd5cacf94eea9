"""Scores by source length: where attention should help and one fixed vector fail.

Bahdanau et al. (2015), figure 2, on the user's own data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nmt.errors import NmtError
from nmt.evaluate.metrics import RESAMPLES, Score, score

LEAST = 30  # segments in a bucket: below, an interval says nothing
_BOUNDS = [5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400]


@dataclass(frozen=True)
class Bucket:
    """Segments whose source has between `low` and `high` characters, both included.

    Attributes:
        low: fewest characters.
        high: most; None for no limit.
        members: numbers of its segments, from 0.
    """

    low: int
    high: int | None
    members: list[int]

    @property
    def label(self) -> str:
        """``11-15``, or ``41+`` for the last."""
        return f"{self.low}+" if self.high is None else f"{self.low}-{self.high}"

    @property
    def title(self) -> str:
        """Label and number of segments, for the axis of a chart."""
        return f"{self.label}\n({len(self.members)})"


def source_length(text: str) -> int:
    """Characters without white space: what a user can count, whatever the pieces are."""
    return sum(not character.isspace() for character in text)


def parse_bounds(text: str) -> list[int] | None:
    """Return the bounds in ``10,20,40``, or None for ``auto``.

    Raises:
        NmtError: not whole numbers that rise from 1 or more.
    """
    if text == "auto":
        return None
    try:
        bounds = [int(part) for part in text.split(",")]
    except ValueError:
        raise _bad_bounds(text) from None
    _check_bounds(bounds)
    return bounds


def make_buckets(sources: Sequence[str], bounds: Sequence[int] | None = None) -> list[Bucket]:
    """Sort segments into buckets of source length.

    Args:
        sources: raw lines.
        bounds: the longest length of each bucket but the last, rising. Left out, round
            numbers are taken, and buckets with fewer than `LEAST` segments joined to
            their longer neighbour (the last one to its shorter).

    Returns:
        Buckets that hold every segment once, shortest first; with given bounds, those
        without a segment are left out.

    Raises:
        NmtError: bounds that don't rise, or start below 1.
    """
    lengths = [source_length(text) for text in sources]
    chosen = _BOUNDS if bounds is None else list(bounds)
    _check_bounds(chosen)
    lows = [0, *(bound + 1 for bound in chosen)]
    highs: list[int | None] = [*chosen, None]
    buckets = [
        Bucket(low, high, [n for n, length in enumerate(lengths) if _within(length, low, high)])
        for low, high in zip(lows, highs, strict=True)
    ]
    if bounds is None:
        buckets = _join_small(buckets)
    filled = [bucket for bucket in buckets if bucket.members]
    if filled and filled[0].low == 0:  # nobody counts from 0; blank lines go here too
        filled[0] = Bucket(1, filled[0].high, filled[0].members)
    return filled


def score_buckets(
    buckets: Sequence[Bucket],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
) -> list[Score]:
    """BLEU with its interval for each bucket.

    Args:
        buckets: from `make_buckets`.
        hypotheses: of all segments.
        references: complete sets of references, at least one.
    """

    def pick(lines: Sequence[str], bucket: Bucket) -> list[str]:
        return [lines[number] for number in bucket.members]

    found = []
    for bucket in buckets:
        mine, theirs = pick(hypotheses, bucket), [pick(lines, bucket) for lines in references]
        found += score(mine, theirs, kinds=["bleu"], resamples=RESAMPLES)
    return found


def _check_bounds(bounds: Sequence[int]) -> None:
    if not bounds or bounds[0] < 1 or any(b <= a for a, b in itertools.pairwise(bounds)):
        raise _bad_bounds(",".join(map(str, bounds)))


def _bad_bounds(text: str) -> NmtError:
    return NmtError(
        f"length bounds {text}: not rising whole numbers from 1 on",
        "use auto, or bounds like 10,20,40",
    )


def _within(length: int, low: int, high: int | None) -> bool:
    return low <= length and (high is None or length <= high)


def _join_small(buckets: list[Bucket]) -> list[Bucket]:
    joined: list[Bucket] = []
    low: int | None = None
    waiting: list[int] = []
    for bucket in buckets:
        low = bucket.low if low is None else low
        waiting = waiting + bucket.members
        if len(waiting) >= LEAST:
            joined.append(Bucket(low, bucket.high, sorted(waiting)))
            low, waiting = None, []
    if joined and (waiting or joined[-1].high is not None):
        last = joined.pop()
        joined.append(Bucket(last.low, None, sorted(last.members + waiting)))
    elif waiting:
        joined.append(Bucket(0, None, sorted(waiting)))
    return joined
