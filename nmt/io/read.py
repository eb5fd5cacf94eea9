"""Reading text: decompression, lines, encodings."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError, where

BOM = b"\xef\xbb\xbf"


def open_zstd(file: Any, mode: Any = "rb") -> Any:
    """Open a ``.zst`` by its name or its file.

    Raises:
        NmtError: the package for it is missing.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise NmtError(
            f"{getattr(file, 'name', file)}: .zst needs the package backports.zstd",
            "pip install 'nmt-zh-en[formats]', or in a clone: pip install -e '.[formats]'",
        ) from None
    return zstd.open(file, mode)


_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zstd,
}  # fmt: skip


COMPRESSED = tuple(_OPENERS)


class Meter:
    """How far a number of files have been read, by their bytes on disk.

    Args:
        total: bytes of all files that will be read.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._open: list[IO[bytes]] = []
        self._done = 0

    def watch(self, file: IO[bytes]) -> None:
        """Count what is read of `file`, an uncompressed view of the disk."""
        self._open.append(file)

    @property
    def fraction(self) -> float:
        """0 to 1; 0 if nothing is known, as for standard input."""
        for file in [file for file in self._open if file.closed]:
            self._done += Path(file.name).stat().st_size
            self._open.remove(file)
        read = self._done + sum(file.tell() for file in self._open)
        return min(1.0, read / self.total) if self.total else 0.0


@contextlib.contextmanager
def open_bytes(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """Open `path` for reading; ``.gz .bz2 .xz .zst`` are decompressed, ``-`` is stdin.

    Raises:
        NmtError: the file is missing, a directory, or may not be read.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise NmtError("standard input is closed", "name a file")
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            if meter is not None:
                meter.watch(file)
            opener = _OPENERS.get(path.suffix)
            if opener is not None:
                file = stack.enter_context(opener(file))
        except FileNotFoundError:
            raise NmtError(f"{path}: no such file", _similar_file(path)) from None
        except IsADirectoryError:
            raise NmtError(f"{path}: is a directory, a file is needed") from None
        except OSError as error:
            raise NmtError(f"{path}: {error.strerror or error}") from error
        yield file


def check_readable(path: Path) -> None:
    """Raise the `NmtError` of `open_bytes` if `path` cannot be read."""
    with open_bytes(path):
        pass


def _similar_file(path: Path) -> str:
    import difflib

    with contextlib.suppress(OSError):  # a folder that may not be looked into
        names = sorted(child.name for child in path.parent.iterdir())
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "relative paths start at the folder the command is run in"


def read_lines(
    path: Path, encoding: str | None = None, meter: Meter | None = None, errors: str = "strict"
) -> Generator[str, None, None]:
    r"""Yield the lines of a file without their final ``\n``.

    A byte-order mark at the start is dropped and so is one ``\r`` before a line
    end (files from Windows); a missing final newline makes no extra line.

    Args:
        path: the file, or ``-``.
        encoding: of a corpus source, whose key it is; None is UTF-8 for all else.
        meter: told how far the file has been read.
        errors: ``replace`` puts U+FFFD in the place of what is not in the encoding.

    Raises:
        NmtError: missing file, wrong encoding (with the line), damaged compression.
    """
    number = 0
    with open_bytes(path, meter) as file:
        try:
            raw_lines = _utf16_lines(file) if encoding == "utf-16" else file
            for number, raw in enumerate(raw_lines, start=1):
                if number == 1:
                    raw = raw.removeprefix(BOM)
                yield decode_line(raw, path, number, encoding, errors)
        except UnicodeDecodeError as error:
            raise NmtError(
                f"{where(path, number + 1)}: not valid UTF-16 ({error.reason})"
            ) from None
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, number, error) from error


def is_damage(error: Exception) -> bool:
    """Whether decompression or the disk, not our code, raised this while reading."""
    # zstd's own error has no base class but Exception.
    known = (EOFError, zlib.error, lzma.LZMAError, OSError)
    return isinstance(error, known) or type(error).__name__ == "ZstdError"


def damaged(path: object, number: int, error: Exception) -> NmtError:
    """The message for compressed data that can't be read on after line `number`."""
    return NmtError(
        f"{where(path, number or None)}: compressed data is damaged or cut off ({error})",
        "make or fetch the file again; nothing was written",
    )


def _utf16_lines(file: IO[bytes]) -> Iterator[bytes]:
    with io.TextIOWrapper(file, encoding="utf-16", newline="\n") as text:
        for line in text:
            # A lone surrogate can't come out of the decoder, so this can't fail.
            yield line.encode()


def decode_line(
    raw: bytes, path: object, number: int, encoding: str | None = None, errors: str = "strict"
) -> str:
    r"""Decode one line of bytes, its ``\n`` or ``\r\n`` removed.

    Args:
        raw: the line.
        path: for the message.
        number: of the line, for the message.
        encoding: as in `read_lines`.
        errors: likewise.

    Raises:
        NmtError: the bytes are not in the encoding; names file, line and, for Chinese
            text in another one, which it looks like.
    """
    if raw.endswith(b"\n"):
        raw = raw[:-1]
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    codec = encoding if encoding in ("gb18030", "big5") else "utf-8"
    try:
        return raw.decode(codec, errors)
    except UnicodeDecodeError as error:
        looks_like = _guess_encoding(raw, codec)
        reads = f"; it reads as {looks_like[0]}: {looks_like[1]}" if looks_like else ""
        name = looks_like[0] if looks_like else "GB18030"
        convert = f"iconv -f {name} -t UTF-8 IN > OUT"
        raise NmtError(
            f"{where(path, number)}: not valid {codec.upper()} (byte {error.start + 1} of the "
            f"line is 0x{raw[error.start]:02x}){reads}",
            f"convert the file first, for example: {convert}"
            if encoding is None
            else f"set encoding: {name.lower()} under this source, or convert the file: {convert}",
        ) from error


# The commonest characters of Chinese text in either script: what tells one encoding's
# reading from another's, since GB18030 makes characters of almost any bytes.
_COMMON = frozenset(
    "的一是不了人我在有他这这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家"
    "学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经"
    "這來國個說們為時會過學對裡後麼無開發經還當樣點們沒現動問進"
)


def _guess_encoding(raw: bytes, codec: str) -> tuple[str, str] | None:
    """The encoding these bytes are most likely in, and how they read in it."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16", raw.decode("utf-16", "replace")[:20].replace("\ufffd", "")
    best: tuple[int, str, str] = (0, "", "")
    for name in ("GB18030", "Big5", "UTF-8"):
        if name.lower() == codec:
            continue
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        best = max(best, (sum(c in _COMMON for c in text), name, text[:20]))
    return (best[1], best[2]) if best[0] else None
