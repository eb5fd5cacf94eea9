"""Where pairs come from. A pair stays a pair from here on: never two lists."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nmt.config import HskSource, ParallelSource, Source, TsvSource
from nmt.errors import NmtError, where
from nmt.text import read_lines


class Pair(NamedTuple):
    """A sentence and its translation, as they stood in the source."""

    src: str
    trg: str


def read_pairs(source: Source) -> Iterator[Pair]:
    """Stream the pairs of one source, in its order.

    Raises:
        NmtError: missing or malformed file, with the line.
    """
    if isinstance(source, HskSource):
        return (Pair(row["chinese"], row["translation"]["en"]) for row in _hsk_rows())
    if isinstance(source, TsvSource):
        return _read_tsv(source)
    return _read_parallel(source)


def read_extra_pairs(source: Source) -> Iterator[Pair]:
    """Stream the pairs of a source that may only be trained on, never held out."""
    if isinstance(source, HskSource) and source.glosses:
        return _hsk_glosses()
    return iter(())


def source_files(source: Source) -> list[Path]:
    """The files a source reads, for checksums."""
    if isinstance(source, TsvSource):
        return [source.path]
    if isinstance(source, ParallelSource):
        return [source.src, source.trg]
    return []


def describe(source: Source) -> str:
    """A short name for tables and messages."""
    files = " + ".join(str(path) for path in source_files(source))
    return files or "hsk-sentences-audio 1.0.0 (CC-BY-SA 4.0)"


def _read_tsv(source: TsvSource) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(source.path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise NmtError(
                f"{where(source.path, number)}: {len(columns)} columns, 2 are needed "
                "(Chinese, tab, English)",
                "a tab inside a sentence counts as a column; replace it by a space",
            )
        yield Pair(*columns)


def _read_parallel(source: ParallelSource) -> Iterator[Pair]:
    lines = itertools.zip_longest(read_lines(source.src), read_lines(source.trg))
    for number, (src, trg) in enumerate(lines, start=1):
        if src is None or trg is None:
            counts = [sum(1 for _ in read_lines(path)) for path in (source.src, source.trg)]
            raise NmtError(
                f"{counts[0]} lines in {source.src}, {counts[1]} in {source.trg}: the shorter "
                f"one ends before line {number}",
                "the two files must correspond line by line",
            )
        yield Pair(src, trg)


def _hsk_rows() -> list[dict[str, Any]]:
    try:
        from hsk_sentences_audio import load_sentences
    except ImportError:
        raise NmtError(
            "source hsk: the package hsk-sentences-audio is not installed",
            "pip install 'nmt-zh-en[sample]', or in a clone: pip install -e '.[sample]'",
        ) from None
    rows: list[dict[str, Any]] = load_sentences()
    return rows


_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_MAX_SENSES = 2  # later senses of a dictionary gloss are rare ones


def _hsk_glosses() -> Iterator[Pair]:
    """Each word with the first senses of its gloss, once.

    ``to like; to be fond of`` gives ``like`` and ``be fond of``: the sentences use
    the verb without its ``to``, and never the explanation in brackets.
    """
    seen: set[tuple[str, str]] = set()
    for row in _hsk_rows():
        for token in row["tokens"]:
            word, gloss = token["word"], token["gloss_en"]
            key = (word, gloss)
            if key in seen:
                continue
            seen.add(key)
            for sense in _senses(gloss):
                yield Pair(word, sense)


def _senses(gloss: str) -> list[str]:
    bare = (_ASIDE.sub("", sense).strip(" .,") for sense in gloss.split(";"))
    senses = [sense.removeprefix("to ") for sense in bare]
    return [sense for sense in senses if sense][:_MAX_SENSES]
