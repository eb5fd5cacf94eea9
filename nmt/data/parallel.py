"""Parallel text files named on the command line: reading and checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.io.sgm import is_markup, parse_segments
from nmt.text.normalise import has_han

Named = tuple[str, Sequence[object]]  # name of a file, its lines


def read_texts(path: Path, role: str = "src") -> list[str]:
    """Read the lines of a text file, or the segments of a WMT or IWSLT file in markup.

    Args:
        path: the file.
        role: ``src``, ``ref`` or ``hyp``; selects the text of a file in markup.

    Raises:
        NmtError: the file is missing, empty or not UTF-8, or contains several texts.
    """
    texts = read_references(path, role)
    if len(texts) > 1:
        raise NmtError(
            f"{path}: contains {len(texts)} texts of the same documents, one is needed",
            "extract one of them, one sentence a line",
        )
    return texts[0]


def read_references(path: Path, role: str = "ref") -> list[list[str]]:
    """Read the references in a file: its lines, or in markup one text per translator.

    Raises:
        NmtError: the file is missing, empty or not UTF-8.
    """
    lines = list(read_lines(path, markup=True))
    if not lines:
        raise NmtError(f"{path}: is empty, nothing to score")
    if is_markup(next(filter(str.strip, lines), "")):
        return parse_segments(lines, path, role)
    return [lines]


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
