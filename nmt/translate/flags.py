"""Signs that a translation may be wrong, from the search and from the attention.

A flag is a hint for review. It is not a probability of error, and a translation without
flags may be wrong.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Hashable, Sequence

from nmt.data.lengths import LengthStatistics, length_ratio
from nmt.data.tokenizer import Tokenizer, byte_of
from nmt.text.normalise import has_han
from nmt.text.numerals import numbers_differ
from nmt.translate.types import Flag, Part, Translation

_MIN_LETTERS = 4  # allow a name, or OK
_MIN_REPEATS = 3  # of a sequence of words, consecutive
_MAX_SEQUENCE = 8  # words
_LOW_ATTENTION = 0.15  # to a piece, summed over the target
_MIN_UNATTENDED = 0.34  # fraction of a part's pieces
_FAR = 1.25  # factor on the ratios of 98 % of the pairs
_UNKNOWN_SHARE = 0.34  # of a part's characters


def find_flags(
    translation: Translation, src: Tokenizer, usual: LengthStatistics | None
) -> list[Flag]:
    """Return the flags of a translation; none for a blank line.

    Args:
        translation: with its parts.
        src: tokenizer of the Chinese side.
        usual: typical lengths of the training data, if known.
    """
    if not translation.parts:
        return []
    candidates = [
        _script(translation),
        _repetition(translation),
        _unattended(src, translation.parts),
        _numbers(translation),
        _length(translation.parts, usual),
        _vocabulary(src, translation.parts),
    ]
    return [flag for flag in candidates if flag is not None]


def _script(translation: Translation) -> Flag | None:
    """Flag a source with letters but without Chinese characters."""
    letters = [character for character in translation.source if character.isalpha()]
    if len(letters) < _MIN_LETTERS or has_han(translation.source):
        return None
    return Flag("script", f"no Chinese character among its {len(letters)} letters")


def _repetition(translation: Translation) -> Flag | None:
    """Flag a repeated sequence of words that the source does not repeat."""
    words = translation.text.split()
    run, times = most_repeated([word.strip(".,!?;:").lower() for word in words])
    if times < _MIN_REPEATS:
        return None
    _, in_source = most_repeated(list(translation.source))
    if in_source >= times - 1:  # 哈哈哈
        return None
    return Flag("repetition", f"{' '.join(map(str, run))!r} occurs {times} times in a row")


def most_repeated(items: Sequence[Hashable]) -> tuple[Sequence[Hashable], int]:
    """Return the most repeated consecutive sequence of at most 8 items, and its repetitions."""
    best: tuple[Sequence[Hashable], int] = ([], 1 if items else 0)
    for size in range(1, min(_MAX_SEQUENCE, len(items)) + 1):
        equal = 0  # items in a row that equal the one `size` before
        for at in range(size, len(items)):
            equal = equal + 1 if items[at] == items[at - size] else 0
            times = 1 + equal // size
            if times > best[1]:
                best = (items[at - size + 1 : at + 1], times)
    return best


def _unattended(src: Tokenizer, parts: list[Part]) -> Flag | None:
    """Flag source pieces with little attention from all target words."""
    missed: list[str] = []
    flagged = False
    for part in parts:
        normalised, pieces = src.normalise(part.model_input), part.pieces
        received = part.hypotheses[0].attention[:, : len(pieces)].sum(dim=0).numpy()
        content = [
            index
            for index, piece in enumerate(pieces)
            if any(map(str.isalnum, normalised[piece.begin : piece.end]))
        ]
        unattended = [index for index in content if received[index] < _LOW_ATTENTION]
        if len(unattended) > 1 and len(unattended) >= _MIN_UNATTENDED * len(content):
            flagged = True
            spans = dict.fromkeys((pieces[index].begin, pieces[index].end) for index in unattended)
            missed += [normalised[begin:end].strip() for begin, end in spans]
    return Flag("unattended", f"low attention: {' '.join(missed)}") if flagged else None


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


def _length(parts: list[Part], usual: LengthStatistics | None) -> Flag | None:
    """Flag a length ratio far outside those of the dev set."""
    if usual is None:
        return None
    shortest, longest = usual.ratio[0] / _FAR, usual.ratio[1] * _FAR
    for part in parts:
        if part.literal:
            continue
        source = len(part.pieces)
        length = len(part.hypotheses[0].ids)
        if not shortest <= length_ratio(source, length) <= longest:
            return Flag("length", f"{length} pieces for {source} of the source")
    return None


def _vocabulary(src: Tokenizer, parts: list[Part]) -> Flag | None:
    """Flag a source whose characters are mostly encoded as byte pieces."""
    unknown: list[str] = []
    characters = 0
    for part in parts:
        normalised, pieces = src.normalise(part.model_input), part.pieces
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
        "vocabulary",
        f"{len(unknown)} of {characters} characters are not in the vocabulary: {shown}".rstrip(),
    )
