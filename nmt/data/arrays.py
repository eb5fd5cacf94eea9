"""Incremental writing of NumPy array files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class ArrayFile:
    """A one-dimensional ``.npy`` file written by appending; `finish` records the length.

    NumPy pads the header, so a longer first axis does not move the data.

    Args:
        stack: closes the file.
        path: of the file.
        dtype: of the array.

    Attributes:
        count: values written so far.
    """

    def __init__(self, stack: ExitStack, path: Path, dtype: np.dtype[Any]) -> None:
        self._file: IO[bytes] = stack.enter_context(path.open("wb"))
        self.dtype = dtype
        self.count = 0
        self._write_header()

    def _write_header(self) -> None:
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, described)

    def append(self, values: NDArray[Any]) -> None:
        """Append values, converted to `dtype`."""
        self._file.write(values.astype(self.dtype, copy=False).tobytes())
        self.count += len(values)

    def finish(self) -> None:
        """Write the final length into the header."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
