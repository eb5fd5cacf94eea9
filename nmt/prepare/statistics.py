"""Counts over the text of a corpus, computed per chunk and summed.

Everything is a sum, so the result does not depend on the number of workers.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nmt.data.manifest import TextStatistics
from nmt.data.tokenizer import Tokenizer
from nmt.prepare.pair import Pair
from nmt.symbols import SPECIALS

MAX_LENGTH = 400  # characters or pieces; the last bin of a histogram has all longer ones
_MAX_CHARACTERS = 5000  # different characters counted per side
_HALF = ",.!?:;()"
_FULL = "，。！？：；（）"


@dataclass
class Statistics:
    """Counts over the pairs that passed the cleaning rules, and over the packed pairs.

    Attributes:
        counts: by name; see `count_pairs`.
        lengths: histograms by name, `[MAX_LENGTH + 1]`.
        pieces: frequency of each piece in train, by side, `[vocab]`.
        bytes: characters spelled in bytes, by side.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    pieces: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    bytes: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, statistics: Statistics) -> None:
        """Add the counts of another chunk."""
        self.counts.update(statistics.counts)
        for totals, parts in ((self.lengths, statistics.lengths), (self.pieces, statistics.pieces)):
            for name, values in parts.items():
                totals[name] = totals[name] + values if name in totals else values
        for side, characters in statistics.bytes.items():
            total = self.bytes.setdefault(side, Counter())
            for character, count in characters.items():
                if character in total or len(total) < _MAX_CHARACTERS:
                    total[character] += count

    def count_lengths(self, name: str, lengths: Iterable[int]) -> None:
        """Add lengths to the histogram `name`."""
        values = np.minimum(np.fromiter(lengths, np.int64), MAX_LENGTH)
        counts = np.bincount(values, minlength=MAX_LENGTH + 1)
        self.lengths[name] = self.lengths.get(name, 0) + counts

    def count_pairs(self, pairs: list[Pair]) -> None:
        """Count scripts, punctuation and lengths of raw pairs."""
        simplified, traditional = _script_characters()
        counts = self.counts
        for pair in pairs:
            only_simplified = not simplified.isdisjoint(pair.src)
            only_traditional = not traditional.isdisjoint(pair.src)
            if only_simplified:
                counts["mixed scripts" if only_traditional else "simplified"] += 1
            else:
                counts["traditional" if only_traditional else "either script"] += 1
        characters = Counter("".join(pair.src for pair in pairs))
        counts["full-width punctuation"] += sum(characters[mark] for mark in _FULL)
        counts["half-width punctuation"] += sum(characters[mark] for mark in _HALF)
        latin = sum(n for c, n in characters.items() if c.isascii() and c.isalpha())
        counts["Latin letters"] += latin
        counts["source characters"] += characters.total() - characters[" "]
        counts["sources with Latin"] += sum(_has_latin(pair.src) for pair in pairs)
        counts["pairs"] += len(pairs)
        self.count_lengths("src characters", (len(pair.src) for pair in pairs))
        self.count_lengths("trg characters", (len(pair.trg) for pair in pairs))

    def count_pieces(self, side: str, tokenizer: Tokenizer, sentences: list[list[int]]) -> None:
        """Count pieces, lengths in pieces, and characters spelled in bytes."""
        self.count_lengths(f"{side} pieces", map(len, sentences))
        flat = np.fromiter((i for s in sentences for i in s), np.int64)
        counts = np.bincount(flat, minlength=len(tokenizer))
        self.pieces[side] = self.pieces.get(side, 0) + counts
        first, last = tokenizer.byte_ids
        spelled = self.bytes.setdefault(side, Counter())
        if counts[first : last + 1].any():
            for sentence in sentences:
                if any(first <= i <= last for i in sentence):
                    spelled.update(tokenizer.byte_characters(sentence))

    def summary(self, tokenizers: dict[str, Tokenizer]) -> TextStatistics:
        """Return the part that the manifest stores."""
        top = {}
        for side, counts in self.pieces.items():
            order = np.argsort(-counts, kind="stable")[:60]
            top[side] = [
                (tokenizers[side].piece(int(i)), int(counts[i]))
                for i in order
                if counts[i] and i not in SPECIALS
            ]
        return TextStatistics(
            counts=dict(sorted(self.counts.items())),
            lengths={name: values.tolist() for name, values in sorted(self.lengths.items())},
            unused_pieces={
                side: _count_unused(counts, tokenizers[side])
                for side, counts in self.pieces.items()
            },
            byte_characters={
                side: sorted(spelled.items(), key=lambda item: (-item[1], item[0]))[:200]
                for side, spelled in self.bytes.items()
            },
            byte_totals={
                side: (len(spelled), spelled.total()) for side, spelled in self.bytes.items()
            },
            pieces=top,
        )


def _count_unused(counts: NDArray[np.int64], tokenizer: Tokenizer) -> int:
    """Return how many pieces do not occur in train, without special and byte pieces."""
    first, last = tokenizer.byte_ids
    unused = counts == 0
    unused[list(SPECIALS)] = False
    unused[first : last + 1] = False
    return int(np.count_nonzero(unused))


def _has_latin(text: str) -> bool:
    return not text.isascii() and any(c.isascii() and c.isalpha() for c in text)


@functools.lru_cache(maxsize=1)
def _script_characters() -> tuple[frozenset[str], frozenset[str]]:
    """Return the characters of Simplified text only, and of Traditional text only.

    A character that OpenCC converts but that the other script's national character set has
    as well occurs in both scripts: 后 and 里 are in Big5, 乾 and 著 in GB 2312.
    """
    import opencc

    han = "".join(map(chr, range(0x4E00, 0xA000)))
    to_simplified, to_traditional = (
        opencc.OpenCC("t2s").convert(han),
        opencc.OpenCC("s2t").convert(han),
    )
    traditional = {a for a, b in zip(han, to_simplified, strict=True) if a != b}
    simplified = {a for a, b in zip(han, to_traditional, strict=True) if a != b}
    return (
        frozenset(c for c in simplified if not _encodable(c, "big5")),
        frozenset(c for c in traditional if not _encodable(c, "gb2312")),
    )


def _encodable(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
