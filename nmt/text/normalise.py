"""Normalisation of text, and the key of a sentence in leakage checks."""

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
# Invisible characters other than spaces and line ends: they only split the vocabulary.
# U+200D and U+FE0F stay, since they join emoji.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")


@functools.lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def normalise(text: str, *, simplify: bool) -> str:
    """Normalise a line to the form the model reads; the same for every command.

    Unicode NFKC (full-width letters, digits and punctuation become half-width), then
    invisible characters are removed, runs of white space become one space, and the ends
    are stripped. References for scoring are not normalised.

    Args:
        text: one line.
        simplify: also convert Traditional characters to Simplified with OpenCC
            (``t2s``); meant for the Chinese side only.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
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
        single = " " if character.isspace() else unicodedata.normalize("NFKC", character)
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
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded
