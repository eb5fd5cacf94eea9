"""Second pass: decide from the keys of all kept pairs which pair goes to which set.

Order: placeholder targets, duplicates, near-duplicates, caps, excluded files, pairs that share
a sentence with dev and test files, drawing dev and test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmt.config.schema import DataConfig
from nmt.errors import NmtError
from nmt.prepare import dedup, holdout
from nmt.prepare.drops import EXAMPLES, Drops
from nmt.prepare.pair import Pair
from nmt.text.keys import Flags, Keys, is_member, sentence_key
from nmt.text.normalise import normalise


@dataclass
class Span:
    """The kept pairs of one source, `begin:end`, with its weight and cap."""

    begin: int
    end: int
    weight: float
    cap: int | None


@dataclass(frozen=True)
class CorpusKeys:
    """Keys of all kept pairs: sentences, exact pair, near-duplicate; each `[pairs]`."""

    src: Keys
    trg: Keys
    pairs: Keys
    near: Keys

    @classmethod
    def concatenate(cls, chunks: list[NDArray[np.uint64]]) -> CorpusKeys:
        """Join the keys of chunks, each `[4, pairs]`."""
        return cls(*np.concatenate([np.zeros((4, 0), np.uint64), *chunks], axis=1))

    def __len__(self) -> int:
        return len(self.src)


class Decisions:
    """Assign every kept pair to a set.

    Args:
        data: the data section of the configuration.
        keys: of the kept pairs.
        spans: the source of each pair.
        read: number of pairs read, for messages.
        drops: counters to add to.

    Attributes:
        split_ids: TRAIN, DEV, TEST or DROPPED, `[pairs]`.
        examples: dropped pairs to show in the report: position to reason.
    """

    def __init__(
        self, data: DataConfig, keys: CorpusKeys, spans: list[Span], read: int, drops: Drops
    ) -> None:
        self.data = data
        self.keys = keys
        self.spans = spans
        self.read = read
        self.drops = drops
        self.split_ids: holdout.SplitIds = np.zeros(len(keys), dtype=np.uint8)
        self.examples: dict[int, str] = {}

    def decide(
        self,
        eligible: int,
        held_out: list[Pair],
        excluded: dict[Path, Keys],
        previous: dict[int, Keys] | None = None,
    ) -> None:
        """Fill in `split_ids`.

        Args:
            eligible: the first so many pairs may be held out, the others only trained on.
            held_out: the pairs of dev and test where these are files.
            excluded: sentence keys of each file of `data.exclude`.
            previous: pair keys that an earlier corpus held out, by DEV and TEST.

        Raises:
            NmtError: no pair is left, or too few to hold out.
        """
        self._drop_repetition(eligible)
        for span in self.spans:
            if span.cap is not None:
                over = holdout.over_cap(self._is_train(), span.begin, span.end, span.cap)
                self._drop(over, "over the cap of its source")
        if not self._is_train().any():
            raise nothing_left(self.read, self.drops)
        for path, keys in excluded.items():
            self._drop(self._shares_sentence(keys, keys), f"meets {path}")
        if held_out:
            self._drop_shared_with(held_out)
        self._hold_out(eligible, previous or {})
        if not self._is_train().any():
            raise NmtError(
                "no pair is left to train on: every pair is in dev or test or shares a sentence "
                "with them or with data.exclude",
                "lower data.dev and data.test, or add text to data.sources",
            )

    def _is_train(self) -> Flags:
        flags: Flags = self.split_ids == holdout.TRAIN
        return flags

    def _shares_sentence(self, src: Keys, trg: Keys) -> Flags:
        return is_member(self.keys.src, src) | is_member(self.keys.trg, trg)

    def _drop(self, flags: Flags, reason: str) -> None:
        flags = flags & self._is_train()
        count = int(np.count_nonzero(flags))
        if count:
            self.drops.counts[reason] += count
            self.examples.update(dict.fromkeys(sample_flags(flags, EXAMPLES), reason))
            self.split_ids[flags] = holdout.DROPPED

    def _drop_repetition(self, eligible: int) -> None:
        clean, keys = self.data.clean, self.keys
        limit = clean.max_sources_per_target
        if limit is not None:
            max_sources = max(20, eligible // 1000) if limit == "auto" else limit
            flags = dedup.find_placeholder_targets(keys.src, keys.trg, max_sources)
            self._drop(flags, f"one target for over {max_sources} sources")
        if clean.duplicates:
            self._drop(dedup.find_duplicates(keys.pairs, self._is_train()), "duplicate pair")
        if clean.near_duplicates:
            self._drop(dedup.find_duplicates(keys.near, self._is_train()), "near-duplicate pair")

    def _drop_shared_with(self, held_out: list[Pair]) -> None:
        """Drop pairs that share a sentence with dev and test files."""
        src = [sentence_key(normalise(p.src, simplify=self.data.to_simplified)) for p in held_out]
        trg = [sentence_key(normalise(p.trg, simplify=False)) for p in held_out]
        shared = self._shares_sentence(np.array(src, np.uint64), np.array(trg, np.uint64))
        self._drop(shared, "meets dev or test")
        if not self._is_train().any():
            raise NmtError(
                "every training pair shares a sentence with dev or test",
                "data.dev and data.test must be other text than data.sources",
            )

    def _hold_out(self, eligible: int, previous: dict[int, Keys]) -> None:
        sizes = ((holdout.DEV, self.data.dev), (holdout.TEST, self.data.test))
        wanted = {split_id: size for split_id, size in sizes if isinstance(size, int)}
        if not wanted:
            return
        candidates = self._is_train()
        candidates[eligible:] = False
        groups = holdout.find_groups(self.keys.src, self.keys.trg, candidates)
        kept = {
            split_id: is_member(self.keys.pairs, previous[split_id])
            for split_id in wanted.keys() & previous.keys()
        }
        split_ids = holdout.hold_out(groups, self.keys.src, wanted, self.data.seed, kept)
        self.split_ids[candidates] = split_ids[candidates]
        drawn = np.isin(self.split_ids, list(wanted))
        shared = self._shares_sentence(self.keys.src[drawn], self.keys.trg[drawn])
        self._drop(shared, "meets dev or test")


def sample_flags(flags: Flags, count: int) -> list[int]:
    """Return up to `count` positions that are True, evenly spaced among them."""
    positions = np.flatnonzero(flags)
    if not len(positions):
        return []
    chosen = np.unique(np.arange(count) * len(positions) // count)
    return [int(position) for position in positions[chosen]]


def nothing_left(read: int, drops: Drops) -> NmtError:
    """Return the error for a corpus of which no pair passes the cleaning rules."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in drops.counts.most_common())
    return NmtError(
        f"no pair is left of {read} after cleaning ({reasons or 'no lines'})",
        "check that the Chinese side comes first; the rules are keys of data.clean",
    )
