"""Signs that a translation may be wrong, from the search and from the attention.

A flag is a hint where to look first. It is no probability of being wrong, and a
translation without flags is not therefore right.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nmt.data.tokenizer import Tokenizer, byte_of
from nmt.text.normalise import has_han
from nmt.text.numerals import numbers_differ
from nmt.translate.lengths import UsualLengths, length_ratio

if TYPE_CHECKING:  # the translator offers these flags, and so imports this file
    from nmt.translate.translator import Part, Translation

_FEWEST_LETTERS = 4  # a name or OK may well stand alone
_REPEATS = 3  # of a run of words, one after another
_LONGEST_RUN = 8  # words
_UNSEEN = 0.15  # attention that a piece got from all words together
_UNSEEN_SHARE = 0.34  # of a part's pieces, before it is worth a flag
_FAR = 1.25  # times the ratios of 98 % of the pairs
_UNKNOWN_SHARE = 0.34  # of a part's characters


@dataclass(frozen=True)
class Flag:
    """One sign.

    Attributes:
        name: ``script``, ``repetition``, ``unattended``, ``numbers``, ``length`` or
            ``vocabulary``.
        detail: what was seen, for people.
    """

    name: str
    detail: str


def flags(translation: Translation, src: Tokenizer, usual: UsualLengths | None) -> list[Flag]:
    """The signs that something is wrong with a translation; none for a blank line.

    Args:
        translation: with its parts.
        src: tokenizer of the Chinese side.
        usual: lengths that the network is used to, if they are known.
    """
    if not translation.parts:
        return []
    found = [
        _script(translation),
        _repetition(translation),
        _unattended(src, translation.parts),
        _numbers(translation),
        _length(src, translation.parts, usual),
        _vocabulary(src, translation.parts),
    ]
    return [flag for flag in found if flag is not None]


def _script(translation: Translation) -> Flag | None:
    """A source of words, and none of them Chinese: whatever comes of it means nothing."""
    letters = [character for character in translation.source if character.isalpha()]
    if len(letters) < _FEWEST_LETTERS or has_han(translation.source):
        return None
    return Flag("script", f"no Chinese character among its {len(letters)} letters")


def _repetition(translation: Translation) -> Flag | None:
    """The same words again and again, where the source does not repeat itself as often."""
    words = translation.text.split()
    run, times = most_repeated([word.strip(".,!?;:").lower() for word in words])
    if times < _REPEATS:
        return None
    _, in_source = most_repeated(list(translation.source))
    if in_source >= times - 1:  # 哈哈哈
        return None
    return Flag("repetition", f"{' '.join(map(str, run))!r} stands {times} times in a row")


def most_repeated(items: Sequence[Hashable]) -> tuple[Sequence[Hashable], int]:
    """The run of at most 8 items that follows itself most often, and how often it stands."""
    best: tuple[Sequence[Hashable], int] = ([], 1 if items else 0)
    for size in range(1, min(_LONGEST_RUN, len(items)) + 1):
        equal = 0  # items in a row that equal the one `size` before
        for at in range(size, len(items)):
            equal = equal + 1 if items[at] == items[at - size] else 0
            times = 1 + equal // size
            if times > best[1]:
                best = (items[at - size + 1 : at + 1], times)
    return best


def _unattended(src: Tokenizer, parts: list[Part]) -> Flag | None:
    """Pieces of the source that no word of the translation looked at."""
    missed: list[str] = []
    worth = False
    for part in parts:
        normalised, pieces = src.normalise(part.source), src.pieces(part.source)
        seen = part.hypotheses[0].attention[:, : len(pieces)].sum(dim=0).numpy()
        content = [
            index
            for index, piece in enumerate(pieces)
            if any(map(str.isalnum, normalised[piece.begin : piece.end]))
        ]
        unseen = [index for index in content if seen[index] < _UNSEEN]
        if len(unseen) > 1 and len(unseen) >= _UNSEEN_SHARE * len(content):
            worth = True
            spans = dict.fromkeys((pieces[index].begin, pieces[index].end) for index in unseen)
            missed += [normalised[begin:end].strip() for begin, end in spans]
    return Flag("unattended", f"hardly looked at: {' '.join(missed)}") if worth else None


def _numbers(translation: Translation) -> Flag | None:
    if not numbers_differ(translation.source, translation.text):
        return None

    def written(text: str) -> str:
        return ", ".join(re.findall(r"\d[\d.,]*", unicodedata.normalize("NFKC", text))) or "none"

    return Flag(
        "numbers",
        f"in the source {written(translation.source)}; in the translation "
        f"{written(translation.text)}",
    )


def _length(src: Tokenizer, parts: list[Part], usual: UsualLengths | None) -> Flag | None:
    """A length that hardly a pair of the run's dev set comes near to."""
    if usual is None:
        return None
    shortest, longest = usual.ratio[0] / _FAR, usual.ratio[1] * _FAR
    for part in parts:
        source = len(src.encode(part.source))
        length = len(part.hypotheses[0].ids)
        if not shortest <= length_ratio(source, length) <= longest:
            return Flag("length", f"{length} pieces for {source} of the source")
    return None


def _vocabulary(src: Tokenizer, parts: list[Part]) -> Flag | None:
    """Characters that the vocabulary lacks, spelled in bytes: the network hardly knows them."""
    unknown: list[str] = []
    characters = 0
    for part in parts:
        normalised, pieces = src.normalise(part.source), src.pieces(part.source)
        characters += sum(not c.isspace() for c in normalised)
        spelled = {
            piece.begin
            for piece in pieces
            if byte_of(src.piece(piece.id)) is not None and not normalised[piece.begin].isspace()
        }
        unknown += [normalised[at] for at in sorted(spelled)]
    if not characters or len(unknown) < _UNKNOWN_SHARE * characters:
        return None
    shown = "".join(dict.fromkeys(itertools.islice(filter(str.isprintable, unknown), 20)))
    return Flag(
        "vocabulary", f"{len(unknown)} of {characters} characters are not in it: {shown}".rstrip()
    )
