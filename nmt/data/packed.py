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
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

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
    """A set of pairs as token ids."""

    src: Side
    trg: Side

    def __len__(self) -> int:
        return len(self.src)

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
        return cls(*sides)

    @staticmethod
    def _open_side(folder: Path, stem: str) -> Side:
        arrays = []
        for part in ("ids", "ends"):
            path = folder / f"{stem}.{part}.npy"
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
        self._ids = _ArrayFile(stack, stem, "ids", np.dtype("<u2" if vocab <= 65536 else "<i4"))
        self._ends = _ArrayFile(stack, stem, "ends", np.dtype("<i8"))

    def add(self, ids: NDArray[Any], lengths: NDArray[Any]) -> None:
        self._ends.add(self._ids.count + np.cumsum(lengths))
        self._ids.add(ids)

    def finish(self) -> None:
        self._ids.finish()
        self._ends.finish()


class _ArrayFile:
    """A ``.npy`` file that grows by appending; the header is rewritten at the end.

    NumPy pads the header so that a larger first axis does not change its size.
    """

    def __init__(self, stack: ExitStack, stem: Path, part: str, dtype: np.dtype[Any]) -> None:
        path = stem.with_name(f"{stem.name}.{part}.npy")
        self._file: IO[bytes] = stack.enter_context(path.open("wb"))
        self.dtype = dtype
        self.count = 0
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, values: NDArray[Any]) -> None:
        self._file.write(values.astype(self.dtype, copy=False).tobytes())
        self.count += len(values)

    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.flush()
