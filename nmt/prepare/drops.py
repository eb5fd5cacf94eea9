"""Counts and examples of the pairs that were dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nmt.prepare.pair import Pair
from nmt.text.keys import text_key

EXAMPLES = 5  # shown for each drop reason
_MAX_CHARS = 200  # of a side of an example


@dataclass
class Drops:
    """Number of dropped pairs by reason, with examples.

    The examples of a reason are those with the smallest hash, so they come from the whole
    corpus and do not depend on the number of workers.
    """

    counts: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, dict[int, Pair]] = field(default_factory=dict)

    def drop(self, reason: str, pair: Pair, count: int = 1) -> None:
        """Count a dropped pair and offer it as an example; `count` 0 only offers it."""
        self.counts[reason] += count
        shown = Pair(_shorten(pair.src), _shorten(pair.trg))
        self._offer(reason, {text_key(f"{shown.src}\t{shown.trg}"): shown})

    def add(self, drops: Drops) -> None:
        """Add the drops of another chunk."""
        for reason, pairs in drops._examples.items():
            self._offer(reason, pairs)
        self.counts.update(drops.counts)

    def _offer(self, reason: str, pairs: dict[int, Pair]) -> None:
        merged = self._examples.get(reason, {}) | pairs
        self._examples[reason] = {key: merged[key] for key in sorted(merged)[:EXAMPLES]}

    def examples(self, reason: str) -> list[Pair]:
        """Return at most `EXAMPLES` different pairs dropped for a reason."""
        return list(self._examples.get(reason, {}).values())


def _shorten(text: str) -> str:
    return text[:_MAX_CHARS].encode("utf-8", "replace").decode()
