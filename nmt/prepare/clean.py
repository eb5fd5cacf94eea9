"""Cleaning rules: pure functions that say whether a pair is bad, each with a name.

The rules of this module look at one pair. Those that need the whole corpus
(duplicates, one target for many sources) are in `nmt.prepare.split`, under names of
the same kind, and are counted in the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nmt.config import CleanConfig
from nmt.prepare.sources import Pair

# Ideographs of every extension, compatibility forms and the zero 〇.
_HAN = re.compile("[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ue000-\uf8ff\ufffd]")

Rule = Callable[[Pair], bool]


def has_han(text: str) -> bool:
    """Whether there is a Chinese character in it."""
    return _HAN.search(text) is not None


def empty(pair: Pair) -> bool:
    """A side without a visible character."""
    return not pair.src.strip() or not pair.trg.strip()


def identical(pair: Pair) -> bool:
    """Both sides alike: nothing was translated."""
    return pair.src.strip() == pair.trg.strip()


def control_characters(pair: Pair) -> bool:
    """Control or private-use characters, or the mark of a broken decoding (U+FFFD)."""
    return _CONTROL.search(pair.src) is not None or _CONTROL.search(pair.trg) is not None


def no_han(pair: Pair) -> bool:
    """A Chinese side without a Chinese character."""
    return not has_han(pair.src)


def han_in_english(pair: Pair) -> bool:
    """An English side with a Chinese character."""
    return has_han(pair.trg)


def too_long(pair: Pair, max_chars: int) -> bool:
    """A side of more than `max_chars` characters."""
    return max(len(pair.src), len(pair.trg)) > max_chars


def length_ratio(pair: Pair, max_ratio: float) -> bool:
    """Sides too different in length to be translations.

    English takes some three characters to one Chinese, so the English side is
    divided by three first; twenty characters are allowed on top, since short
    sentences differ freely.
    """
    src, trg = len(pair.src.strip()), len(pair.trg.strip()) / 3
    slack = 20 / 3
    return max(src, trg) > slack + max_ratio / 3 * min(src, trg)


def pair_rules(config: CleanConfig) -> dict[str, Rule]:
    """The rules switched on, by name, in the order they are asked."""
    rules: dict[str, Rule] = {
        "empty side": empty,
        "control characters": control_characters,
        "identical sides": identical,
        "too long": lambda pair: too_long(pair, config.max_chars),
        "length ratio": lambda pair: length_ratio(pair, config.max_ratio),
    }
    if config.require_han:
        rules["no Chinese in source"] = no_han
    if config.forbid_han:
        rules["Chinese in target"] = han_in_english
    return rules
