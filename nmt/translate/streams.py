"""Input lines: from arguments, from a file, or from a pipe or terminal as they arrive."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from nmt.errors import NmtError
from nmt.io.read import BOM, decode_line, read_lines
from nmt.translate.request import Errors

_MOST_LINES = 2048
_MOST_BYTES = 1 << 22


def argument_lines(texts: list[str], errors: Errors) -> Iterator[list[str]]:
    """The arguments, each of which is one line whatever it holds.

    Raises:
        NmtError: one is not UTF-8, and `errors` is strict.
    """
    lines = []
    for number, text in enumerate(texts, start=1):
        raw = text.replace("\n", " ").encode("utf-8", "surrogateescape")
        with _offering_replacement():
            lines.append(decode_line(raw, "TEXT", number, errors=errors))
    yield lines


def file_lines(path: Path, errors: Errors) -> Iterator[str]:
    """The lines of a file, as they are asked for.

    Raises:
        NmtError: missing, damaged, or not UTF-8 and `errors` is strict.
    """
    with _offering_replacement():
        yield from read_lines(path, errors=errors)


def arriving_lines(descriptor: int, errors: Errors) -> Iterator[list[str]]:
    """The lines that have arrived by now, each time it is asked; waits for the first.

    A person, or a program that waits for the answer to its line, gets it at once. A file
    or a faster writer fills whole windows: while one is translated the next arrives.

    Args:
        descriptor: of standard input.
        errors: what to do about bytes that are not UTF-8.

    Raises:
        NmtError: bytes that are not UTF-8, if `errors` is strict; the lines before them
            are yielded first.
    """
    number = 0
    for raw_lines in _arriving(descriptor):
        window: list[str] = []
        for raw in raw_lines:
            number += 1
            if number == 1:
                raw = raw.removeprefix(BOM)
            try:
                with _offering_replacement():
                    window.append(decode_line(raw, "standard input", number, errors=errors))
            except NmtError:
                if window:
                    yield window
                raise
        yield window


def _arriving(descriptor: int) -> Iterator[list[bytes]]:
    held = bytearray()
    searched = 0  # of `held`, up to here there is no line end
    ended = False
    while not ended:
        lines: list[bytes] = []
        size = 0
        while not ended:
            block = _read(descriptor)  # waits if nothing is there
            ended = not block
            held += block
            last = held.rfind(b"\n", searched)
            searched = len(held)
            if last >= 0:
                whole = bytes(held[: last + 1])
                del held[: last + 1]
                searched = len(held)
                size += len(whole)
                lines += whole.split(b"\n")[:-1]
            full = len(lines) >= _MOST_LINES or size >= _MOST_BYTES
            if lines and (full or not _more_now(descriptor)):
                break
        if ended and held:
            lines.append(bytes(held))  # no final line end
        for start in range(0, len(lines), _MOST_LINES):
            yield lines[start : start + _MOST_LINES]


def _read(descriptor: int) -> bytes:
    if sys.platform == "win32" and os.isatty(descriptor):  # its bytes are in some code page
        return sys.stdin.buffer.read1(1 << 16)
    return os.read(descriptor, 1 << 16)


def _more_now(descriptor: int) -> bool:
    if sys.platform == "win32":  # knows no waiting on pipes: whole windows, or single lines
        return not os.isatty(descriptor)
    return bool(select.select([descriptor], [], [], 0)[0])


@contextlib.contextmanager
def _offering_replacement() -> Iterator[None]:
    """Name the option that lets bytes pass which are not UTF-8."""
    try:
        yield
    except NmtError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        hint = f"{error.hint}; or put U+FFFD in their place: --encoding-errors replace"
        raise NmtError(error.message, hint) from error.__cause__
