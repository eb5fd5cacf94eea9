"""64-bit keys of sentences, kept on disk and read block by block.

Two sentences of a corpus of n share a key by accident with odds of about n² / 2^65:
one in a hundred thousand at 18 million pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from nmt.text.normalise import fence_key

Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]
Shrink = Callable[[Indices, Keys], Flags]

BLOCK = 1 << 18  # keys read at once
PART = 1 << 20  # keys sorted at once


def sentence_key(text: str) -> int:
    """64 bits that stand for a sentence; equal for sentences the fence holds equal."""
    return text_key(fence_key(text))


def text_key(text: str) -> int:
    """64 bits that stand for exactly this text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class KeyFile:
    """An array of keys on disk, appended to within a ``with``. `len` is how many they are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._count = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> KeyFile:
        self._file = self.path.open("wb")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def __len__(self) -> int:
        return self._count

    def add(self, keys: Keys) -> None:
        """Append keys."""
        assert self._file is not None
        self._file.write(keys.astype("<u8", copy=False).tobytes())
        self._count += len(keys)

    def blocks(self) -> Iterator[tuple[int, Keys]]:
        """Position of the first key, and the keys, of one block after the other."""
        with self.path.open("rb") as file:
            for start in range(0, self._count, BLOCK):
                yield start, np.frombuffer(file.read(8 * BLOCK), dtype="<u8")

    def parts(
        self, wanted: Flags | None = None, shrink: Shrink | None = None
    ) -> Iterator[tuple[Indices, Keys]]:
        """See `_parts`."""
        return _parts(self, wanted, shrink)

    def at(self, positions: Indices) -> Keys:
        """The keys at these positions (ascending)."""
        found = [np.zeros(0, np.uint64)]
        for start, block in self.blocks():
            low, high = np.searchsorted(positions, (start, start + len(block)))
            found.append(block[positions[low:high] - start])
        return np.concatenate(found)

    def among(self, few: Keys) -> Flags:
        """True where a key is one of `few`, `[keys]`."""
        flags = np.zeros(self._count, dtype=bool)
        for start, block in self.blocks():
            flags[start : start + len(block)] = member(block, few)
        return flags


class JoinedKeys:
    """One key for each pair of two files: equal if both are."""

    def __init__(self, first: KeyFile, second: KeyFile) -> None:
        self._files = first, second

    def __len__(self) -> int:
        return len(self._files[0])

    def blocks(self) -> Iterator[tuple[int, Keys]]:
        """As of `KeyFile`."""
        first, second = (file.blocks() for file in self._files)
        for (start, a), (_, b) in zip(first, second, strict=True):
            yield start, _mixed(a ^ _mixed(b))

    def parts(
        self, wanted: Flags | None = None, shrink: Shrink | None = None
    ) -> Iterator[tuple[Indices, Keys]]:
        """See `_parts`."""
        return _parts(self, wanted, shrink)


def _parts(
    keys: KeyFile | JoinedKeys, wanted: Flags | None, shrink: Shrink | None
) -> Iterator[tuple[Indices, Keys]]:
    """Positions (ascending) and keys, divided so that equal keys come together.

    A part is small enough to sort in memory, whatever the size of the file, unless very
    many keys are equal; for that there is `shrink`.

    Args:
        keys: what to divide.
        wanted: positions to leave out are False.
        shrink: asked about a part that has become too large before it is complete, with
            its positions and keys: which of them are needed still.
    """
    bits = max(0, (len(keys) - 1) // PART).bit_length()
    for part in range(1 << bits):
        positions, found = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        held, room = 0, 2 * PART
        for start, block in keys.blocks():
            chosen = np.ones(len(block), dtype=bool)
            if bits:
                chosen = block >> np.uint64(64 - bits) == part
            if wanted is not None:
                chosen &= wanted[start : start + len(block)]
            at = np.flatnonzero(chosen)
            positions.append(at + start)
            found.append(block[at])
            held += len(at)
            if shrink is not None and held > room:
                whole = np.concatenate(positions), np.concatenate(found)
                needed = shrink(*whole)
                positions, found = [whole[0][needed]], [whole[1][needed]]
                held = len(positions[0])
                room = max(room, 2 * held)  # not again and again for nothing
        yield np.concatenate(positions), np.concatenate(found)


def member(values: Keys, few: Keys) -> Flags:
    """True where a value is one of `few`."""
    if not len(few):
        return np.zeros(len(values), dtype=bool)
    few = np.sort(few)
    at = np.minimum(np.searchsorted(few, values), len(few) - 1)
    found: Flags = few[at] == values
    return found


def scatter(positions: Indices, count: int) -> Indices:
    """A reproducible random number, 0 to `count` - 1, for each position (splitmix64)."""
    with np.errstate(over="ignore"):
        x = _mixed(positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (x >> np.uint64(32)).astype(np.int64) % count


def _mixed(x: Keys) -> Keys:
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
