"""Protected spans of a line, before and after the search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import regex

from nmt.text.spans import MAX_SPANS, Span, find_spans

_STAND_IN = "\ue000"  # one character in place of a span while a line is split


@dataclass(frozen=True)
class Section:
    """A part of a line before translation.

    Attributes:
        begin: offset in the line, in characters.
        text: as its user wrote it.
        spans: its protected spans, with offsets in `text`.
        literal: the text is a span that is copied instead of translated.
    """

    begin: int
    text: str
    spans: tuple[Span, ...] = ()
    literal: bool = False


def split_line(
    line: str,
    patterns: Sequence[regex.Pattern[str]] | None,
    split: Callable[[str], Iterator[tuple[int, str]]],
    *,
    has_symbols: bool,
) -> Iterator[Section]:
    """Yield the sections of a line, each with at most `MAX_SPANS` spans.

    Args:
        line: as its user wrote it.
        patterns: further patterns of protected spans; None to protect nothing.
        split: splits a text into parts with their offsets.
        has_symbols: whether the vocabularies have the symbols of spans. Without them the text
            between spans is translated, and the spans stay where they are.
    """
    spans = [] if patterns is None else find_spans(line, patterns)
    if not spans:
        yield from (Section(begin, text) for begin, text in split(line))
    elif has_symbols:
        yield from _split_around(line, spans, split)
    else:
        end = 0
        for span in spans:
            yield from _sections_between(line, end, span.begin, split)
            yield Section(span.begin, span.text, literal=True)
            end = span.end
        yield from _sections_between(line, end, len(line), split)


def _sections_between(
    line: str, begin: int, end: int, split: Callable[[str], Iterator[tuple[int, str]]]
) -> Iterator[Section]:
    for offset, text in split(line[begin:end]):
        if any(map(str.isalnum, text)):
            yield Section(begin + offset, text)
        elif text.strip():
            yield Section(begin + offset, text, literal=True)


def _split_around(
    line: str, spans: list[Span], split: Callable[[str], Iterator[tuple[int, str]]]
) -> Iterator[Section]:
    """Split a line whose spans are one character each, then put the spans back."""
    short, positions, end = "", [], 0
    for span in spans:
        short += line[end : span.begin]
        positions.append(len(short))
        short += _STAND_IN
        end = span.end
    short += line[end:]
    shift = 0  # characters of the line before `begin` that `short` lacks
    used = 0  # spans before `begin`
    for begin, text in split(short):
        while used < len(spans) and positions[used] < begin:
            shift += len(spans[used].text) - 1
            used += 1
        for start, stop in _at_most(positions, begin, begin + len(text)):
            inside = [n for n in range(used, len(spans)) if positions[n] < stop]
            offset = start + shift
            grown = sum(len(spans[n].text) - 1 for n in inside)
            moved = tuple(
                replace(spans[n], begin=spans[n].begin - offset, end=spans[n].end - offset)
                for n in inside
            )
            yield Section(offset, line[offset : stop + shift + grown], moved)
            shift, used = shift + grown, used + len(inside)


def _at_most(positions: list[int], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut ``begin:end`` so that no piece has more than `MAX_SPANS` positions."""
    inside = [position for position in positions if begin <= position < end]
    for cut in inside[MAX_SPANS::MAX_SPANS]:
        yield begin, cut
        begin = cut
    yield begin, end
