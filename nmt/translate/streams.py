"""Input lines: from arguments, from a file, or from a pipe or terminal as they arrive."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from nmt.errors import NmtError
from nmt.io.read import BOM, MAX_LINE, decode_line, read_lines
from nmt.translate.request import Errors

_MAX_WINDOW_LINES = 2048
_MAX_WINDOW_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 16


def argument_lines(texts: list[str], errors: Errors) -> Iterator[list[str]]:
    """Yield the arguments as one window; line feeds in an argument become spaces.

    Raises:
        NmtError: an argument is not UTF-8, and `errors` is strict.
    """
    lines = []
    for number, text in enumerate(texts, start=1):
        raw = text.replace("\n", " ").encode("utf-8", "surrogateescape")
        with _replacement_hint():
            lines.append(decode_line(raw, "TEXT", number, errors=errors))
    yield lines


def file_lines(path: Path, errors: Errors) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        NmtError: the file is missing, damaged, has a line that is too long, or is not UTF-8 and
            `errors` is strict.
    """
    with _replacement_hint():
        yield from read_lines(path, errors=errors)


def arriving_lines(descriptor: int, errors: Errors) -> Iterator[list[str]]:
    """Yield windows of the lines that have arrived; wait for at least one.

    A single line is yielded at once, so that an interactive writer gets its translation. A
    faster writer fills windows of at most 2,048 lines.

    Args:
        descriptor: file descriptor of standard input.
        errors: ``replace`` puts U+FFFD in the place of bytes that are not UTF-8.

    Raises:
        NmtError: a line is too long, or is not UTF-8 and `errors` is strict; the lines before
            it are yielded first.
    """
    number = 0
    for raw_lines in _raw_windows(descriptor):
        window: list[str] = []
        for raw in raw_lines:
            number += 1
            if number == 1:
                raw = raw.removeprefix(BOM)
            try:
                with _replacement_hint():
                    window.append(decode_line(raw, "standard input", number, errors=errors))
            except NmtError:
                if window:
                    yield window
                raise
        yield window


def _raw_windows(descriptor: int) -> Iterator[list[bytes]]:
    """Yield windows of undecoded lines; a line over `MAX_LINE` is cut off and the last."""
    buffer = bytearray()  # an incomplete line
    ended = False
    while not ended:
        lines: list[bytes] = []
        size = 0
        while not ended:
            block = _read(descriptor)  # waits for input
            end = block.rfind(b"\n") + 1
            if end:
                complete = bytes(buffer) + block[:end]
                buffer = bytearray(block[end:])
                size += len(complete)
                lines += complete.split(b"\n")[:-1]
            else:
                buffer += block
            ended = not block or len(buffer) > MAX_LINE
            is_full = len(lines) >= _MAX_WINDOW_LINES or size >= _MAX_WINDOW_BYTES
            if lines and (is_full or not _has_more(descriptor)):
                break
        if ended and buffer:
            lines.append(bytes(buffer))  # no final line feed
        for start in range(0, len(lines), _MAX_WINDOW_LINES):
            yield lines[start : start + _MAX_WINDOW_LINES]


def _read(descriptor: int) -> bytes:
    if sys.platform == "win32" and os.isatty(descriptor):  # bytes in the console's code page
        return sys.stdin.buffer.read1(_BLOCK_BYTES)
    return os.read(descriptor, _BLOCK_BYTES)


def _has_more(descriptor: int) -> bool:
    """Whether input is available without waiting."""
    if sys.platform == "win32":  # select does not support pipes there
        return not os.isatty(descriptor)
    return bool(select.select([descriptor], [], [], 0)[0])


@contextlib.contextmanager
def _replacement_hint() -> Iterator[None]:
    """Context manager: add ``--encoding-errors replace`` to the hint of a decoding error."""
    try:
        yield
    except NmtError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        hint = f"{error.hint}; or put U+FFFD in their place: --encoding-errors replace"
        raise NmtError(error.message, hint) from error.__cause__
