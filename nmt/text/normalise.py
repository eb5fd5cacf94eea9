"""Normalisation of text, and the keys of a sentence in leakage checks and deduplication."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable
from difflib import SequenceMatcher

_SPACES = re.compile(r"\s+")
# Ideographs of all extensions, compatibility forms, and the zero 〇.
HAN = "[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_HAN = re.compile(HAN)
# Characters that emoji sequences are built from.
_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
# Control characters other than white space, and the property Default_Ignorable_Code_Point of
# Unicode: they only split the vocabulary. U+200D and U+FE0F are removed outside emoji only.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
    rf"|(?<![{_EMOJI}\ufe0f])\u200d|\u200d(?![{_EMOJI}])"
    rf"|(?<![{_EMOJI}0-9#*])\ufe0f|(?<=[0-9#*])\ufe0f(?!\u20e3)"
)
# Superscripts, fractions and enclosed numbers, which NFKC turns into plain digits.
_SUPERSCRIPTS = "\u00b2\u00b3\u00b9\u2070\u2071\u2074-\u207f"
_FRACTIONS = "\u00bc-\u00be\u2150-\u215f\u2189"
_NUMBERS = (
    f"{_SUPERSCRIPTS}{_FRACTIONS}\u2080-\u2089\u2460-\u249b\u24ea\u3220-\u3229\u3251-\u325f"
    "\u3280-\u3289\u32b1-\u32bf\U0001f100-\U0001f10a"
)
_UNCHANGED = re.compile(
    rf"([{_SUPERSCRIPTS}{_FRACTIONS}]+|(?<=[\d{_NUMBERS}])[{_NUMBERS}]|[{_NUMBERS}](?=[\d{_NUMBERS}]))"
)


@functools.lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def nfkc(text: str) -> str:
    """Return Unicode NFKC of `text`, except that no digits are joined to a number.

    Superscripts and fractions are unchanged, since 10² and 1½ are neither 102 nor 11/2, and
    so are enclosed numbers and subscripts beside a digit.
    """
    if text.isascii():
        return text
    if not _UNCHANGED.search(text):
        return unicodedata.normalize("NFKC", text)
    parts = _UNCHANGED.split(text)
    parts[::2] = [unicodedata.normalize("NFKC", part) for part in parts[::2]]
    return "".join(parts)


def normalise(text: str, *, simplify: bool) -> str:
    """Normalise a line to the form the model reads; the same for every command.

    Unicode NFKC (full-width letters, digits and punctuation become half-width; see `nfkc`),
    invisible characters are removed, runs of white space become one space, and the ends
    are stripped. References for scoring are not normalised.

    Args:
        text: one line.
        simplify: also convert Traditional characters to Simplified with OpenCC
            (``t2s``); meant for the Chinese side only.
    """
    # Removed before NFKC too, which would not compose characters around them.
    text = _INVISIBLE.sub("", nfkc(_INVISIBLE.sub("", text)))
    text = _SPACES.sub(" ", text).strip()
    return _simplifier()(text) if simplify else text


def character_origins(original: str, normalised: str, *, simplify: bool) -> list[int]:
    """Return, for each character of `normalised`, the index of its character in `original`.

    Each character is normalised alone, and the concatenation is matched with the whole. The
    mapping is approximate only where neighbouring characters influence each other (composition,
    phrase conversion).
    """
    if original == normalised:
        return list(range(len(original)))
    characters: list[str] = []
    sources: list[int] = []
    for index, character in enumerate(original):
        single = " " if character.isspace() else nfkc(character)
        if simplify and not single.isspace():
            single = normalise(single, simplify=True)
        characters.extend(single)
        sources.extend([index] * len(single))
    if len(characters) == len(normalised) and "".join(characters) == normalised:
        return sources
    origins = [-1] * len(normalised)
    matcher = SequenceMatcher(None, "".join(characters), normalised, autojunk=False)
    for _, a0, a1, b0, b1 in matcher.get_opcodes():
        for offset in range(b1 - b0):
            nearest = min(a0 + offset, max(a1 - 1, a0), len(sources) - 1)
            origins[b0 + offset] = sources[nearest]
    return origins


def has_han(text: str) -> bool:
    """Whether the text has a Chinese character."""
    return _HAN.search(text) is not None


def leakage_key(text: str) -> str:
    """Return the text that is equal for sentences regarded as the same in leakage checks.

    Case, punctuation and spaces are removed. A text of nothing else is only case-folded, so
    "?!" and "..." differ.
    """
    folded = nfkc(text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded


_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORD = r"[^\W_]"
# Signs, decimal points and operators; other punctuation does not distinguish two pairs.
_MEANINGFUL = re.compile(
    rf"{_WORD}+|[+<>=^~|%‰$€£¥±×÷≤≥≠≈√∞°]|(?<!{_WORD})[-.](?=\d)|(?<=\d)[-.,:](?=\d)"
    rf"|(?<={_WORD})[/*&@_\\](?={_WORD})|(?<=[a-z0-9])#|#(?=[a-z0-9])"
)


def near_duplicate_key(text: str) -> str:
    """Return the text that is equal for sentences regarded as near-duplicates.

    As `leakage_key`, but signs, decimal points and operators beside digits and names are
    kept: 1 and -1, 1.5 and 15, C and C++, a<b and a>b differ.
    """
    folded = _THOUSANDS.sub("", _DASHES.sub("-", nfkc(text).casefold()))
    return "".join(_MEANINGFUL.findall(folded)) or folded
