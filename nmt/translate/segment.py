"""Split a line that is too long for one search at sentence ends, clause ends, or anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SENTENCE = re.compile(r"[^。！？!?]*[。！？!?]+[”’」』】》〉〕］｝）)\]}\"＂'…]*|[^。！？!?]+")
CLAUSE = re.compile(r"[^，,、；;：:…\s]*[，,、；;：:…\s]+|[^，,、；;：:…\s]+")


@dataclass(frozen=True)
class Splitter:
    """Split lines by their number of pieces.

    Attributes:
        count: function from a text to its number of pieces.
        max_pieces: maximum length of a part.
        target_pieces: length up to which sentences are combined, at most `max_pieces`.
    """

    count: Callable[[str], int]
    max_pieces: int
    target_pieces: int

    def split(self, line: str) -> Iterator[tuple[int, str]]:
        """Yield the non-blank parts of a line with their offsets in characters.

        Sentences are combined up to `target_pieces` only: a network trained on single
        sentences translates the first of several and stops (Tatoeba's dev sentences, two
        to a line: 6 BLEU together, 23 one by one). A sentence stays whole up to
        `max_pieces`.
        """
        begin = 0
        for part in self._split_at(line, [SENTENCE, CLAUSE], self.target_pieces):
            if self.count(part):
                yield begin, part
            begin += len(part)

    def _split_at(self, text: str, patterns: list[re.Pattern[str]], target: int) -> Iterator[str]:
        """Yield matches of the first pattern, combined up to `target` pieces."""
        if not patterns:
            yield from self._split_anywhere(text)
            return
        current, remaining = "", target
        for match in patterns[0].finditer(text):
            segment = match.group()
            count = self.count(segment)
            if count <= remaining:
                current, remaining = current + segment, remaining - count
                continue
            if current:
                yield current
            current, remaining = segment, target - count
            if count > self.max_pieces:
                yield from self._split_at(segment, patterns[1:], self.max_pieces)
                current, remaining = "", target
        if current:
            yield current

    def _split_anywhere(self, text: str) -> Iterator[str]:
        """Yield the longest prefixes of at most `max_pieces`, whatever they contain."""
        begin = 0
        while begin < len(text):
            length = min(4 * self.max_pieces, len(text) - begin)
            while (
                length > 1 and (count := self.count(text[begin : begin + length])) > self.max_pieces
            ):
                length = max(1, min(length - 1, length * self.max_pieces // count))
            yield text[begin : begin + length]
            begin += length
