"""Scores by source length, as in figure 2 of Bahdanau et al. (2015)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from nmt.errors import NmtError
from nmt.evaluate.metrics import RESAMPLES, Score, score

MIN_SEGMENTS = 30  # of a bucket; fewer make the interval meaningless
_DEFAULT_BOUNDS = [5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400]


@dataclass(frozen=True)
class Bucket:
    """Segments whose source has `low` to `high` characters, both included.

    Attributes:
        low: minimum number of characters.
        high: maximum; None for no limit.
        members: indices of the segments.
    """

    low: int
    high: int | None
    members: list[int]

    @property
    def label(self) -> str:
        """``11-15``; ``41+`` for the last bucket."""
        return f"{self.low}+" if self.high is None else f"{self.low}-{self.high}"

    @property
    def title(self) -> str:
        """Label and number of segments, for the axis of a chart."""
        return f"{self.label}\n({len(self.members)})"


def source_length(text: str) -> int:
    """Return the number of characters without white space, independent of the tokenizer."""
    return sum(not character.isspace() for character in text)


def parse_bounds(text: str) -> list[int] | None:
    """Return the bounds in ``10,20,40``, or None for ``auto``.

    Raises:
        NmtError: not increasing whole numbers from 1.
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
        bounds: maximum length of each bucket except the last, increasing. None takes default
            bounds and merges each bucket with fewer than `MIN_SEGMENTS` segments with the next
            longer one, the last with the next shorter one.

    Returns:
        Non-empty buckets, shortest first. Each segment is in one of them.

    Raises:
        NmtError: bounds do not increase, or start below 1.
    """
    lengths = [source_length(text) for text in sources]
    maxima = _DEFAULT_BOUNDS if bounds is None else list(bounds)
    _check_bounds(maxima)
    lows = [0, *(bound + 1 for bound in maxima)]
    highs: list[int | None] = [*maxima, None]
    buckets = [
        Bucket(low, high, [n for n, length in enumerate(lengths) if _within(length, low, high)])
        for low, high in zip(lows, highs, strict=True)
    ]
    if bounds is None:
        buckets = _merge_small(buckets)
    filled = [bucket for bucket in buckets if bucket.members]
    if filled and filled[0].low == 0:  # label it from 1; blank lines belong here too
        filled[0] = Bucket(1, filled[0].high, filled[0].members)
    return filled


def score_buckets(
    buckets: Sequence[Bucket], hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[Score]:
    """Return BLEU with its interval for each bucket.

    Args:
        buckets: from `make_buckets`.
        hypotheses: of all segments.
        references: complete sets of references, at least one.
    """

    def select(lines: Sequence[str], bucket: Bucket) -> list[str]:
        return [lines[number] for number in bucket.members]

    scores = []
    for bucket in buckets:
        selected = [select(lines, bucket) for lines in references]
        scores += score(select(hypotheses, bucket), selected, kinds=["bleu"], resamples=RESAMPLES)
    return scores


def _check_bounds(bounds: Sequence[int]) -> None:
    if not bounds or bounds[0] < 1 or any(b <= a for a, b in itertools.pairwise(bounds)):
        raise _bad_bounds(",".join(map(str, bounds)))


def _bad_bounds(text: str) -> NmtError:
    return NmtError(
        f"length bounds {text}: not increasing whole numbers from 1",
        "use auto, or bounds like 10,20,40",
    )


def _within(length: int, low: int, high: int | None) -> bool:
    return low <= length and (high is None or length <= high)


def _merge_small(buckets: list[Bucket]) -> list[Bucket]:
    merged: list[Bucket] = []
    low: int | None = None
    pending: list[int] = []
    for bucket in buckets:
        low = bucket.low if low is None else low
        pending = pending + bucket.members
        if len(pending) >= MIN_SEGMENTS:
            merged.append(Bucket(low, bucket.high, sorted(pending)))
            low, pending = None, []
    if merged and (pending or merged[-1].high is not None):
        last = merged.pop()
        merged.append(Bucket(last.low, None, sorted(last.members + pending)))
    elif pending:
        merged.append(Bucket(0, None, sorted(pending)))
    return merged
