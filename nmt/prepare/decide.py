"""The second pass: what becomes of every kept pair, decided on keys alone.

In this order: place-holders, duplicates, near-duplicates, caps, files to keep out, the
fence around dev and test given as files, and the draw of those that are not.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nmt.config.schema import DataConfig
from nmt.errors import NmtError
from nmt.prepare import holdout as split
from nmt.prepare.chunks import EXAMPLES, Drops
from nmt.prepare.keys import BLOCK, Flags, KeyFile, Keys, sentence_key
from nmt.prepare.sources import Pair
from nmt.text.normalise import normalise


@dataclass
class Span:
    """The kept pairs of one source, by position: what weight and cap apply to."""

    begin: int
    end: int
    weight: float
    cap: int | None


class CorpusKeys:
    """Keys of all kept pairs: of sources, of targets, and of pairs. Written in a ``with``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.src = KeyFile(folder / "src.keys.tmp")
        self.trg = KeyFile(folder / "trg.keys.tmp")
        self.pairs = KeyFile(folder / "pair.keys.tmp")
        self._stack = ExitStack()

    def __len__(self) -> int:
        return len(self.src)

    def __enter__(self) -> CorpusKeys:
        for keys in (self.src, self.trg, self.pairs):
            self._stack.enter_context(keys)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Append the keys of a chunk, `[3, pairs]`."""
        for file, values in zip((self.src, self.trg, self.pairs), keys, strict=True):
            file.add(values)

    def remove(self) -> None:
        """Delete the files."""
        for keys in (self.src, self.trg, self.pairs):
            keys.path.unlink()


class Decisions:
    """A place for every pair.

    Args:
        data: the configuration.
        keys: of the pairs.
        spans: which of them are of which source.
        read: pairs read, for messages.
        drops: where drops are counted.

    Attributes:
        places: TRAIN, DEV, TEST or DROPPED, `[pairs]`.
        examples: for some dropped pairs, by position, the reason they shall be shown for.
    """

    def __init__(
        self, data: DataConfig, keys: CorpusKeys, spans: list[Span], read: int, drops: Drops
    ) -> None:
        self.data = data
        self.keys = keys
        self.spans = spans
        self.read = read
        self.drops = drops
        self.places: split.Places = np.zeros(len(keys), dtype=np.uint8)
        self.examples: dict[int, str] = {}

    def decide(self, ordinary: int, held: list[Pair], kept_out: dict[Path, Keys]) -> None:
        """Fill in the places.

        Args:
            ordinary: pairs that may be held out; those after them only train.
            held: the pairs of dev and test where they are given as files.
            kept_out: keys of the sentences of each file of `data.exclude`.

        Raises:
            NmtError: nothing is left, or too little to hold out.
        """
        self._drop_repetition(ordinary)
        for span in self.spans:
            if span.cap is not None:
                over = split.over_cap(self._free(), span.begin, span.end, span.cap)
                self._drop(over, "over the cap of its source")
        if not self._free().any():
            raise nothing_left(self.read, self.drops)
        for path, few in kept_out.items():
            self._drop(self.keys.src.among(few) | self.keys.trg.among(few), f"meets {path}")
        if held:
            self._fence(held)
        self._hold_out(ordinary)
        if not self._free().any():
            raise NmtError(
                "no pair is left to train on: all are in dev and test or share a sentence with "
                "what is kept out",
                "lower data.dev and data.test, or add text to data.sources",
            )

    def _free(self) -> Flags:
        free: Flags = self.places == split.TRAIN
        return free

    def _drop(self, bad: Flags, reason: str) -> None:
        bad &= self._free()
        count = int(np.count_nonzero(bad))
        if count:
            self.drops.counts[reason] += count
            self.examples.update(dict.fromkeys(_spread(bad, EXAMPLES), reason))
            self.places[bad] = split.DROPPED

    def _drop_repetition(self, ordinary: int) -> None:
        clean, keys = self.data.clean, self.keys
        limit = clean.max_sources_per_target
        if limit is not None:
            most = max(20, ordinary // 1000) if limit == "auto" else limit
            holders = split.find_place_holders(keys.src, keys.trg, most)
            self._drop(holders, f"one target for over {most} sources")
        if clean.duplicates:
            self._drop(split.find_duplicates(keys.pairs, self._free()), "duplicate pair")
        if clean.near_duplicates:
            near = split.find_near_duplicates(keys.src, keys.trg, self._free())
            self._drop(near, "near-duplicate pair")

    def _fence(self, held: list[Pair]) -> None:
        src = [sentence_key(normalise(p.src, simplify=self.data.to_simplified)) for p in held]
        trg = [sentence_key(normalise(p.trg, simplify=False)) for p in held]
        meets = self.keys.src.among(np.array(src, dtype=np.uint64))
        meets |= self.keys.trg.among(np.array(trg, dtype=np.uint64))
        self._drop(meets, "meets dev or test")
        if not self._free().any():
            raise NmtError(
                "every training pair shares a sentence with dev or test",
                "data.dev and data.test must be other text than data.sources",
            )

    def _hold_out(self, ordinary: int) -> None:
        wanted = {
            place: count
            for place, count in ((split.DEV, self.data.dev), (split.TEST, self.data.test))
            if isinstance(count, int)
        }
        if not wanted:
            return
        free = self._free()
        free[ordinary:] = False
        drawn = split.hold_out(  # the labels have no name here, so as to be gone after it
            split.find_groups(self.keys.src, self.keys.trg, free, self.keys.folder),
            wanted,
            self.data.seed,
        )
        self.places[free] = drawn[free]
        out = np.flatnonzero(np.isin(self.places, list(wanted)))
        meets = self.keys.src.among(self.keys.src.at(out))
        meets |= self.keys.trg.among(self.keys.trg.at(out))
        self._drop(meets, "meets dev or test")


def _spread(flags: Flags, count: int) -> list[int]:
    """Positions of `count` flags, evenly taken of all, found without listing them."""
    wanted = np.unique(np.arange(count) * int(np.count_nonzero(flags)) // count)
    found: list[int] = []
    seen = 0
    for start in range(0, len(flags), BLOCK):
        at = np.flatnonzero(flags[start : start + BLOCK])
        low, high = np.searchsorted(wanted, (seen, seen + len(at)))
        found += (at[wanted[low:high] - seen] + start).tolist()
        seen += len(at)
    return found


def nothing_left(read: int, drops: Drops) -> NmtError:
    """The error for a corpus of which nothing passed the rules."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in drops.counts.most_common())
    return NmtError(
        f"no pair is left of {read} after cleaning ({reasons or 'no lines'})",
        "check that the Chinese side comes first; rules are set under data.clean",
    )
