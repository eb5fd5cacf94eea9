"""The packed corpus: token ids in memory-mapped arrays.

The set ``train`` consists of four NumPy files. ``train.src.ids.npy`` has the source ids of
all sentences, concatenated (uint16 if the vocabulary allows); ``train.src.ends.npy`` has
for each sentence the position one past its last id. The target side has the same two.
BOS, EOS and PAD are not stored; `nmt.data.batches` adds them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.data.alignment import PackedAlignment
from nmt.data.arrays import ArrayFile
from nmt.errors import NmtError

SIDES = ("src", "trg")


@dataclass(frozen=True)
class Side:
    """One side of a set: sentence i is ``ids[ends[i-1]:ends[i]]``.

    Attributes:
        ids: ids of all sentences, concatenated, memory-mapped, uint16 or int32.
        ends: one past the last id of each sentence, int64.
    """

    ids: NDArray[Any]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of ids of each sentence, `[sentences]`."""
        return np.diff(self.ends, prepend=0)

    def __getitem__(self, sentence: int) -> NDArray[Any]:
        begin = self.ends[sentence - 1] if sentence else 0
        return self.ids[begin : self.ends[sentence]]


@dataclass(frozen=True)
class PackedSet:
    """Parallel sentences as piece ids.

    Attributes:
        src: source sentences.
        trg: target sentences.
        alignment: word alignments of all sentence pairs, if guided attention needs them.
        extra: further pairs in memory, numbered after these; see `nmt.data.augment`.
    """

    src: Side
    trg: Side
    alignment: PackedAlignment | None = None
    extra: PackedSet | None = None

    def __len__(self) -> int:
        return len(self.src)

    @property
    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Source and target pieces of each pair, the extra pairs at the end."""
        src, trg = self.src.lengths, self.trg.lengths
        if self.extra is None:
            return src, trg
        return (
            np.concatenate([src, self.extra.src.lengths]),
            np.concatenate([trg, self.extra.trg.lengths]),
        )

    @classmethod
    def open(cls, folder: Path, name: str) -> PackedSet:
        """Memory-map the set `name` in `folder`; reads only the headers.

        Raises:
            NmtError: a file is missing, damaged, or inconsistent with the others.
        """
        sides = [cls._open_side(folder, f"{name}.{side}") for side in SIDES]
        if len(sides[0]) != len(sides[1]):
            raise NmtError(
                f"{folder}: {len(sides[0])} source and {len(sides[1])} target sentences in {name}",
                "run nmt prepare again",
            )
        return cls(sides[0], sides[1])

    @staticmethod
    def _open_side(folder: Path, stem: str) -> Side:
        arrays = []
        for part in ("ids", "ends"):
            path = _array_path(folder / stem, part)
            try:
                arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
            except (OSError, ValueError) as error:
                raise NmtError(
                    f"{path}: missing or damaged ({error})", "run nmt prepare again"
                ) from error
        ids, ends = arrays
        if len(ends) and ends[-1] != len(ids):
            raise NmtError(
                f"{folder / stem}: ids and sentence ends do not match", "run nmt prepare again"
            )
        return Side(ids, ends)

    def check(self, name: str, sizes: tuple[int, int, int], vocab: tuple[int, int]) -> None:
        """Check a set against its manifest and vocabularies.

        Args:
            name: of the set, for the message.
            sizes: sentence pairs, source ids and target ids recorded in the manifest.
            vocab: source and target vocabulary size.

        Raises:
            NmtError: a size differs, a sentence is empty, or an id is outside the vocabulary.
        """
        hint = "run nmt prepare again"
        counts = (len(self), len(self.src.ids), len(self.trg.ids))
        names = ("sentence pairs", "source ids", "target ids")
        for noun, count, expected in zip(names, counts, sizes, strict=True):
            if count != expected:
                raise NmtError(f"{name}: damaged: {count} {noun}, not {expected}", hint)
        for label, side, size in zip(SIDES, (self.src, self.trg), vocab, strict=True):
            if (empty := side.lengths <= 0).any():
                sentence = int(empty.argmax())
                raise NmtError(f"{name}.{label}: damaged: sentence {sentence} is empty", hint)
            if side.ids.min() < 0 or side.ids.max() >= size:
                position = int(((side.ids < 0) | (side.ids >= size)).argmax())
                raise NmtError(
                    f"{name}.{label}: damaged: id {side.ids[position]} at position {position}, "
                    f"the vocabulary has {size} pieces",
                    hint,
                )


def _array_path(stem: Path, part: str) -> Path:
    """Return the path of the ids or the ends of a side."""
    return stem.with_name(f"{stem.name}.{part}.npy")


class PackedWriter:
    """Write a set incrementally. Use as a context manager.

    Args:
        folder: the output folder.
        name: of the set, for example ``train``.
        vocab: vocabulary sizes, source first; determine the type of the ids.
    """

    def __init__(self, folder: Path, name: str, vocab: tuple[int, int]) -> None:
        self._stack = ExitStack()
        self._sides = [
            _SideWriter(self._stack, folder / f"{name}.{side}", size)
            for side, size in zip(SIDES, vocab, strict=True)
        ]

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            for side in self._sides:
                side.finish()
        self._stack.close()

    def add(self, ids: tuple[NDArray[Any], ...], lengths: tuple[NDArray[Any], ...]) -> None:
        """Append sentences: by side, their concatenated ids and their lengths."""
        for side, side_ids, side_lengths in zip(self._sides, ids, lengths, strict=True):
            side.add(side_ids, side_lengths)


class _SideWriter:
    def __init__(self, stack: ExitStack, stem: Path, vocab: int) -> None:
        dtype = np.dtype("<u2" if vocab <= 65536 else "<i4")
        self._ids = ArrayFile(stack, _array_path(stem, "ids"), dtype)
        self._ends = ArrayFile(stack, _array_path(stem, "ends"), np.dtype("<i8"))

    def add(self, ids: NDArray[Any], lengths: NDArray[Any]) -> None:
        self._ends.append(self._ids.count + np.cumsum(lengths))
        self._ids.append(ids)

    def finish(self) -> None:
        self._ids.finish()
        self._ends.finish()
