"""What the text is like: counts that chunks make apart and the report adds up.

All of it is sums, so that any number of workers gives the same result.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.data.tokenizer import Tokenizer
from nmt.prepare.sources import Pair
from nmt.symbols import SPECIALS

LONGEST = 400  # characters or pieces that a histogram tells apart
_MOST_CHARACTERS = 5000  # kept of those that fall to bytes, so that a strange corpus stays small
_HALF = ",.!?:;()"
_FULL = "，。！？：；（）"


@dataclass
class Statistics:
    """Counts over the pairs that passed the cleaning rules, or over the packed ones.

    Attributes:
        counts: by name; see `observe` and `observe_pieces`.
        lengths: histograms by name, `[LONGEST + 1]`; the last cell holds all longer ones.
        pieces: how often each piece stands in train, by side, `[vocab]`.
        bytes: characters spelled in bytes, by side.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    pieces: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    bytes: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, other: Statistics) -> None:
        """Add the counts of another part of the corpus."""
        self.counts.update(other.counts)
        for mine, theirs in ((self.lengths, other.lengths), (self.pieces, other.pieces)):
            for name, values in theirs.items():
                mine[name] = mine[name] + values if name in mine else values
        for side, characters in other.bytes.items():
            total = self.bytes.setdefault(side, Counter())
            for character, count in characters.items():
                if character in total or len(total) < _MOST_CHARACTERS:
                    total[character] += count

    def count_lengths(self, name: str, lengths: Iterable[int]) -> None:
        """Add to the histogram `name`."""
        values = np.minimum(np.fromiter(lengths, np.int64), LONGEST)
        counts = np.bincount(values, minlength=LONGEST + 1)
        self.lengths[name] = self.lengths.get(name, 0) + counts

    def observe(self, pairs: list[Pair]) -> None:
        """Count scripts, punctuation and lengths of pairs as they stood in the source."""
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

    def observe_pieces(self, side: str, tokenizer: Tokenizer, sentences: list[list[int]]) -> None:
        """Count pieces, lengths in pieces, and characters that fall to bytes."""
        self.count_lengths(f"{side} pieces", map(len, sentences))
        flat = np.fromiter((i for s in sentences for i in s), np.int64)
        counts = np.bincount(flat, minlength=len(tokenizer))
        self.pieces[side] = self.pieces.get(side, 0) + counts
        first, last = tokenizer.byte_ids
        fallen = self.bytes.setdefault(side, Counter())
        if counts[first : last + 1].any():
            for sentence in sentences:
                if any(first <= i <= last for i in sentence):
                    fallen.update(tokenizer.byte_characters(sentence))

    def described(self, tokenizers: dict[str, Tokenizer]) -> dict[str, Any]:
        """As plain values for the manifest: counts, histograms, rare characters, top pieces."""
        top = {}
        for side, counts in self.pieces.items():
            order = np.argsort(-counts, kind="stable")[:60]
            top[side] = [
                [tokenizers[side].piece(int(i)), int(counts[i])]
                for i in order
                if counts[i] and i not in SPECIALS
            ]
        return {
            "counts": dict(sorted(self.counts.items())),
            "lengths": {name: values.tolist() for name, values in sorted(self.lengths.items())},
            "unused pieces": {
                side: _unused(counts, tokenizers[side]) for side, counts in self.pieces.items()
            },
            "byte characters": {
                side: sorted(fallen.items(), key=lambda item: (-item[1], item[0]))[:200]
                for side, fallen in self.bytes.items()
            },
            "byte characters in all": {
                side: [len(fallen), fallen.total()] for side, fallen in self.bytes.items()
            },
            "pieces": top,
        }


def _unused(counts: NDArray[np.int64], tokenizer: Tokenizer) -> int:
    """Pieces that stand nowhere in train; special ones and bytes are there for another use."""
    first, last = tokenizer.byte_ids
    idle = counts == 0
    idle[list(SPECIALS)] = False
    idle[first : last + 1] = False
    return int(np.count_nonzero(idle))


def _has_latin(text: str) -> bool:
    return not text.isascii() and any(c.isascii() and c.isalpha() for c in text)


@functools.lru_cache(maxsize=1)
def _script_characters() -> tuple[frozenset[str], frozenset[str]]:
    """Characters of Simplified text only, and of Traditional only.

    OpenCC says what converts; the national character sets say what is used in both:
    后 and 里 stand in Big5 as well, 乾 and 著 in GB 2312, so they prove nothing.
    """
    import opencc

    han = "".join(map(chr, range(0x4E00, 0xA000)))
    to_simple, to_old = opencc.OpenCC("t2s").convert(han), opencc.OpenCC("s2t").convert(han)
    traditional = {a for a, b in zip(han, to_simple, strict=True) if a != b}
    simplified = {a for a, b in zip(han, to_old, strict=True) if a != b}
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
