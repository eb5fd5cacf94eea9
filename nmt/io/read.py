"""Read text files: decompression, lines, encodings."""

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
from nmt.io.sgm import is_markup

MAX_LINE = 1 << 24  # bytes; a longer line is not text
BOM = b"\xef\xbb\xbf"


def open_zstd(file: Any, mode: Any = "rb") -> Any:
    """Open a ``.zst`` file by its path or as a file object.

    Raises:
        NmtError: the package backports.zstd is missing.
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
    """Progress of reading several files, in bytes on disk.

    Args:
        total: bytes of all files that will be read.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._open: list[IO[bytes]] = []
        self._done = 0

    def watch(self, file: IO[bytes]) -> None:
        """Include the position of `file`, opened without decompression."""
        self._open.append(file)

    @property
    def fraction(self) -> float:
        """Fraction of the bytes that has been read, 0 to 1; 0 if the total is unknown (stdin)."""
        for file in [file for file in self._open if file.closed]:
            self._done += Path(file.name).stat().st_size
            self._open.remove(file)
        read = self._done + sum(file.tell() for file in self._open)
        return min(1.0, read / self.total) if self.total else 0.0


@contextlib.contextmanager
def open_bytes(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """Open `path` for reading; ``.gz .bz2 .xz .zst`` are decompressed, ``-`` is stdin.

    Raises:
        NmtError: the file is missing, is a directory, or cannot be read.
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
            opener = _OPENERS.get(path.suffix.lower())
            _refuse_other_formats(path, file, compressed=opener is not None)
            if opener is not None:
                file = stack.enter_context(opener(file))
        except FileNotFoundError:
            raise NmtError(f"{path}: no such file", _similar_file(path)) from None
        except IsADirectoryError:
            raise NmtError(f"{path}: is a directory, not a file") from None
        except OSError as error:
            raise NmtError(f"{path}: {error.strerror or error}") from error
        yield file


_MAGIC = {
    b"\x1f\x8b": ("gzip", ".gz"), b"BZh": ("bzip2", ".bz2"), b"\xfd7zXZ": ("xz", ".xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
}  # fmt: skip
_DOCUMENTS = {
    b"PK\x03\x04": "a zip archive or an office document", b"%PDF-": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an office document",
}  # fmt: skip


def _refuse_other_formats(path: Path, file: Any, *, compressed: bool) -> None:
    """Raise for Git LFS pointers, archives, documents, and compressed files without suffix."""
    head = file.peek(64)[:64] if path.is_file() else b""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise NmtError(f"{path}: is a Git LFS pointer, not the file itself", "git lfs pull")
    for magic, (name, suffix) in _MAGIC.items():
        if head.startswith(magic) and not compressed:
            raise NmtError(
                f"{path}: is {name} data without the suffix {suffix}",
                f"mv {path} {path}{suffix}, and name that file",
            )
    for magic, name in _DOCUMENTS.items():
        if head.startswith(magic):
            raise NmtError(
                f"{path}: is {name}, not text", "export it as text, CSV or TMX, or extract it"
            )


def check_readable(path: Path) -> None:
    """Raise the `NmtError` of `open_bytes` if `path` cannot be read."""
    with open_bytes(path):
        pass


def _similar_file(path: Path) -> str:
    import difflib

    with contextlib.suppress(OSError):  # the folder cannot be listed
        names = sorted(child.name for child in path.parent.iterdir())
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "relative paths start at the folder the command is run in"


def read_lines(
    path: Path,
    encoding: str | None = None,
    meter: Meter | None = None,
    errors: str = "strict",
    *,
    markup: bool = False,
) -> Generator[str, None, None]:
    r"""Yield the lines of a file without their final ``\n``.

    A byte-order mark at the start is removed, and so is ``\r`` before a line end (files from
    Windows). The last line may lack a newline.

    Args:
        path: the file, or ``-``.
        encoding: of a corpus source, as configured; None means UTF-8.
        meter: counts the bytes read.
        errors: ``replace`` decodes invalid bytes as U+FFFD.
        markup: also read SGML and XML files; see `nmt.io.sgm`.

    Raises:
        NmtError: the file is missing, a line is not in the encoding, or the compressed data is
            damaged.
    """
    number = 0
    with open_bytes(path, meter) as file:
        try:
            raw_lines = _utf16_lines(file) if encoding == "utf-16" else _raw_lines(file)
            for number, raw in enumerate(raw_lines, start=1):
                if number == 1:
                    raw = raw.removeprefix(BOM)
                    _check_first_line(raw, path, encoding, markup)
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
    """Whether decompression or the disk raised this exception."""
    # The exception of zstd has no specific base class.
    known = (EOFError, zlib.error, lzma.LZMAError, OSError)
    return isinstance(error, known) or type(error).__name__ == "ZstdError"


def damaged(path: object, number: int, error: Exception) -> NmtError:
    """Return the error for compressed data that is damaged after line `number`."""
    return NmtError(
        f"{where(path, number or None)}: compressed data is damaged or cut off ({error})",
        "create or download the file again; nothing was written",
    )


def _raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; one longer than `MAX_LINE` is cut just above it."""
    while line := file.readline(MAX_LINE + 1):
        yield line


def _check_first_line(raw: bytes, path: Path, encoding: str | None, markup: bool) -> None:
    """Raise for SGML and XML files, and for corpus files whose lines end in CR alone."""
    if not markup and is_markup(raw[:64].decode("ascii", "replace")):
        raise NmtError(
            f"{path}: is SGML or XML markup, not one sentence a line",
            "read WMT and IWSLT files with source: sgm"
            if encoding is not None
            else "extract the text first, for example: "
            r"sed -n 's/.*<seg[^>]*>\(.*\)<\/seg>.*/\1/p' IN > OUT",
        )
    if encoding is not None and not raw.endswith(b"\n") and raw.rstrip(b"\r").count(b"\r") > 1:
        raise NmtError(
            f"{path}: its lines end in CR alone", r"convert the file: tr '\r' '\n' < IN > OUT"
        )


def _utf16_lines(file: Any) -> Iterator[bytes]:
    """Yield lines as UTF-8. Without a byte-order mark the byte order is guessed."""
    head = file.peek(1024)[:1024]
    codec = "utf-16"
    if not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        # ASCII characters, such as tabs and line ends, have a zero high byte.
        codec = "utf-16-be" if head[::2].count(0) > head[1::2].count(0) else "utf-16-le"
    with io.TextIOWrapper(file, encoding=codec, newline="\n") as text:
        while line := text.readline(MAX_LINE + 1):
            yield line.encode()


def decode_line(
    raw: bytes, path: object, number: int, encoding: str | None = None, errors: str = "strict"
) -> str:
    r"""Decode one line of bytes without its line end, ``\n``, ``\r\n`` or ``\r\r\n``.

    Args:
        raw: the line.
        path: path, for the message.
        number: line number, for the message.
        encoding: as in `read_lines`.
        errors: likewise.

    Raises:
        NmtError: the line is longer than `MAX_LINE` or is not in the encoding. The message
            contains the file, the line and the likely encoding.
    """
    if len(raw) > MAX_LINE:
        raise NmtError(f"{where(path, number)}: line longer than {MAX_LINE >> 20} MB, not text")
    raw = raw.removesuffix(b"\n").rstrip(b"\r")
    codec = encoding if encoding in ("gb18030", "big5") else "utf-8"
    try:
        return raw.decode(codec, errors)
    except UnicodeDecodeError as error:
        guess = _guess_encoding(raw, codec)
        reads = f"; it reads as {guess[0]}: {guess[1]}" if guess else ""
        name = guess[0] if guess else "GB18030"
        convert = f"iconv -f {name} -t UTF-8 IN > OUT"
        raise NmtError(
            f"{where(path, number)}: not valid {codec.upper()} (byte {error.start + 1} of the "
            f"line is 0x{raw[error.start]:02x}){reads}",
            f"convert the file first, for example: {convert}"
            if encoding is None
            else f"set encoding: {name.lower()} under this source, or convert the file: {convert}",
        ) from error


# Frequent characters of Chinese text in both scripts. They identify the right encoding, since
# almost any bytes are valid GB18030.
_COMMON = frozenset(
    "的一是不了人我在有他这这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家"
    "学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经"
    "這來國個說們為時會過學對裡後麼無開發經還當樣點們沒現動問進"
)


def _guess_encoding(raw: bytes, codec: str) -> tuple[str, str] | None:
    """Return the most likely encoding of these bytes, and the text in it."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16", raw.decode("utf-16", "replace")[:20].replace("\ufffd", "")
    if raw.count(0) > len(raw) // 8:  # no byte-order mark
        return "UTF-16", raw.decode("utf-16-le", "replace")[:20].replace("\ufffd", "")
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
