"""Parallel text files named on the command line: reading and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.text.normalise import has_han

Named = tuple[str, Sequence[object]]  # name of a file, its lines


def read_texts(path: Path) -> list[str]:
    """Read the lines of a text file.

    Raises:
        NmtError: the file is missing, empty or not UTF-8.
    """
    lines = list(read_lines(path))
    if not lines:
        raise NmtError(f"{path}: is empty, nothing to score")
    return lines


def check_same_length(texts: Sequence[Named]) -> None:
    """Check that all texts have the same number of lines.

    Raises:
        NmtError: two numbers differ.
    """
    (first, lines), *others = texts
    for name, other in others:
        if len(other) != len(lines):
            raise NmtError(
                f"{len(lines)} lines in {first}, {len(other)} in {name}",
                "the files must correspond line by line",
            )


def check_has_chinese(name: str, lines: Sequence[str], options: str) -> None:
    """Check that at least half of the non-blank lines contain a Chinese character.

    Args:
        name: name of the file, for the message.
        lines: its lines, segmented into words or not.
        options: options whose values may be swapped, for the hint.

    Raises:
        NmtError: fewer lines contain one.
    """
    with_text = sum(map(bool, map(str.strip, lines)))
    with_han = sum(has_han(line) for line in lines)
    if with_han * 2 < with_text or not with_text:
        raise NmtError(
            f"{name}: {with_han} of {with_text} lines contain a Chinese character: "
            "not a Chinese source",
            f"are {options} swapped?",
        )
