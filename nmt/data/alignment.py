"""Word alignments of a packed set, computed once and memory-mapped.

A folder of three NumPy files and an index. For each sentence pair, the probabilities
A_ij >= `MIN_PROBABILITY` of its alignment matrix `[trg_len, src_len]` are stored, row by row:
``cells.npy`` holds i * src_len + j, ``probabilities.npy`` holds A_ij, and ``ends.npy`` holds
the position one past the last entry of each pair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.data.arrays import ArrayFile
from nmt.io.write import file_sha256, replacing_folder

MIN_PROBABILITY = 1e-3  # smaller ones sum to about 1e-4 of the probability mass
_FORMAT = 1
_INDEX = "index.json"
_DTYPES = {"ends": "<i8", "cells": "<u4", "probabilities": "<f2"}

# Numbers of sentence pairs and their source lengths, `[batch]` each; alignment matrices
# `[batch, trg_len, src_len]`, zero on padding.
Matrices = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class PackedAlignment:
    """Sparse alignment matrices of all sentence pairs of a packed set.

    Attributes:
        ends: one past the last entry of each pair, `[pairs]`.
        cells: i * src_len + j of each entry, `[entries]`.
        probabilities: A_ij of each entry, `[entries]`.
    """

    ends: NDArray[np.int64]
    cells: NDArray[np.uint32]
    probabilities: NDArray[np.float16]

    @classmethod
    def from_batches(cls, batches: Iterable[Matrices], pairs: int) -> PackedAlignment:
        """Pack the alignments of `pairs` sentence pairs, numbered from 0, in any order."""
        numbers, cells, probabilities = [], [], []
        for batch, src_lengths, matrices in batches:
            row, trg, src = np.nonzero(matrices >= MIN_PROBABILITY)
            numbers.append(batch[row])
            cells.append((trg * src_lengths[row] + src).astype(np.uint32))
            probabilities.append(matrices[row, trg, src].astype(np.float16))
        number = np.concatenate(numbers)
        order = np.argsort(number, kind="stable")
        return cls(
            np.cumsum(np.bincount(number, minlength=pairs)),
            np.concatenate(cells)[order],
            np.concatenate(probabilities)[order],
        )

    def matrices(
        self, pairs: NDArray[np.int64], src_lengths: NDArray[np.int64], trg_len: int
    ) -> NDArray[np.float32]:
        """Return the alignment matrices of sentence pairs, zero-padded.

        Args:
            pairs: indices of the pairs, `[batch]`.
            src_lengths: their source lengths, `[batch]`.
            trg_len: rows of each matrix, padding included.

        Returns:
            `[batch, trg_len, max(src_lengths)]`.
        """
        begins = np.where(pairs > 0, self.ends[pairs - 1], 0)
        counts = self.ends[pairs] - begins
        row = np.repeat(np.arange(len(pairs)), counts)
        entries = np.arange(len(row)) + np.repeat(begins - np.cumsum(counts) + counts, counts)
        trg, src = np.divmod(self.cells[entries].astype(np.int64), src_lengths[row])
        matrices = np.zeros((len(pairs), trg_len, src_lengths.max()), dtype=np.float32)
        matrices[row, trg, src] = self.probabilities[entries]
        return matrices

    def entries(self, pair: int) -> tuple[NDArray[np.uint32], NDArray[np.float16]]:
        """Return the cells of a pair and their probabilities."""
        begin, end = self.ends[pair - 1] if pair else 0, self.ends[pair]
        return self.cells[begin:end], self.probabilities[begin:end]

    @classmethod
    def open(cls, folder: Path, key: dict[str, str], pairs: int) -> PackedAlignment | None:
        """Map the alignments in `folder`.

        Returns:
            None if there are none, if they are damaged, or if they have another key.
        """
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            if index != _index(folder, key):
                return None
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in _DTYPES
            }
        except (OSError, ValueError):
            return None
        return cls(**arrays) if len(arrays["ends"]) == pairs else None

    @staticmethod
    def write(folder: Path, key: dict[str, str], parts: Iterator[PackedAlignment]) -> None:
        """Write the alignments of consecutive sentence pairs; the folder appears whole.

        Args:
            folder: replaced if it exists.
            key: identifies what the alignments were computed from.
            parts: written one after the other, so that only one is in memory.

        Raises:
            NmtError: the disk is full or the folder is not writable.
        """
        with replacing_folder(folder) as scratch:
            with ExitStack() as stack:
                files = {
                    name: ArrayFile(stack, scratch / f"{name}.npy", np.dtype(dtype))
                    for name, dtype in _DTYPES.items()
                }
                for part in parts:
                    files["ends"].append(files["cells"].count + part.ends)
                    files["cells"].append(part.cells)
                    files["probabilities"].append(part.probabilities)
                for file in files.values():
                    file.finish()
            index = json.dumps(_index(scratch, key), indent=1, sort_keys=True)
            (scratch / _INDEX).write_text(index + "\n", encoding="utf-8")


def _index(folder: Path, key: dict[str, str]) -> dict[str, Any]:
    """Return the content of the index: format, key, and the hash of each array file."""
    hashes = {name: file_sha256(folder / f"{name}.npy") for name in _DTYPES}
    return {"format": _FORMAT, "key": key, "sha256": hashes}
