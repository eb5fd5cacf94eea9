"""Cleaning rules: named pure functions that return True for a bad pair.

The rules of this module need one raw pair. Rules that need the whole corpus (duplicates,
placeholder targets) are in `nmt.prepare.decide`, those that need pieces in
`nmt.prepare.chunks`; all are counted in the same table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from nmt.config.schema import CleanConfig
from nmt.prepare.pair import Pair
from nmt.text.normalise import has_han
from nmt.text.numerals import numbers_differ

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ue000-\uf8ff\ufffd]")
# Letters that are neither Han nor Latin: Greek to Thai, then kana, Hangul.
_FOREIGN = re.compile(
    "[\u0370-\u1cff\u1f00-\u1fff\u2c00-\u2dff\u3041-\u318f\ua000-\uabff\uac00-\ud7ff]"
)
_LETTER = re.compile(r"[^\W\d_]")
_TAGS = (
    "a|b|big|blockquote|br|center|code|dd|div|dl|dt|em|font|h[1-6]|hr|i|img|li|ol|p|pre|q|s|small|"
    "span|strike|strong|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul"
)  # HTML only: manuals write <file> for an argument
_MARKUP = re.compile(
    rf"</?(?i:{_TAGS})(?:\s[^<>]{{0,200}})?/?>"  # <br/>, <font color="…">
    r"|&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,6});"  # &nbsp; &#39;
    r"|\{\\[^{}]{0,60}\}|\\[Nnh](?![a-z])"  # {\an8} and \N of subtitles
)
_DIGIT = re.compile(r"\d\d")

Rule = Callable[[Pair], bool]


def empty(pair: Pair) -> bool:
    """A side is blank."""
    return not pair.src.strip() or not pair.trg.strip()


def identical(pair: Pair) -> bool:
    """Both sides are equal: not translated."""
    return pair.src.strip() == pair.trg.strip()


def control_characters(pair: Pair) -> bool:
    """A side has control or private-use characters, or U+FFFD of a failed decoding."""
    return _CONTROL.search(pair.src) is not None or _CONTROL.search(pair.trg) is not None


def no_han(pair: Pair) -> bool:
    """The source has no Chinese character."""
    return not has_han(pair.src)


def han_in_english(pair: Pair) -> bool:
    """The target has a Chinese character."""
    return has_han(pair.trg)


def too_long(pair: Pair, max_chars: int) -> bool:
    """A side has more than `max_chars` characters."""
    return max(len(pair.src), len(pair.trg)) > max_chars


def too_short(pair: Pair, min_chars: int) -> bool:
    """A side has fewer than `min_chars` characters."""
    return min(len(pair.src.strip()), len(pair.trg.strip())) < min_chars


def length_ratio(pair: Pair, max_ratio: float) -> bool:
    """The sides differ too much in length to be translations.

    English has about three characters for one Chinese character, so the English length is
    divided by three. Twenty characters are allowed in addition, since the ratio of short
    sentences varies.
    """
    src, trg = len(pair.src.strip()), len(pair.trg.strip()) / 3
    slack = 20 / 3
    return max(src, trg) > slack + max_ratio / 3 * min(src, trg)


def foreign_script(pair: Pair, max_share: float) -> bool:
    """A share of the letters of a side above `max_share` is neither Han nor Latin."""
    for text in pair:
        foreign = _FOREIGN.findall(text)
        if foreign and len(foreign) > max_share * len(_LETTER.findall(text)):
            return True
    return False


def repeated_run(pair: Pair, max_repeats: int) -> bool:
    """A letter or a phrase of up to ten characters occurs over `max_repeats` times in a row.

    Punctuation, spaces and digits do not count: tables and separators repeat them.
    """
    return any(_may_repeat(t, max_repeats) and _repeats(max_repeats).search(t) for t in pair)


def _may_repeat(text: str, max_repeats: int) -> bool:
    """Necessary condition for a run, ten times as fast as the regular expression.

    The first character of the phrase occurs more than `max_repeats` times, and so, except
    near the ends of the run, does any sequence of four characters.
    """
    if (
        len(text) - len(set(text)) < max_repeats
        or max(map(text.count, set(text) - {" "}), default=0) <= max_repeats
    ):
        return False
    fours = Counter([text[i : i + 4] for i in range(len(text) - 3)])
    return max(fours.values(), default=0) >= max_repeats - 2


def _repeats(max_repeats: int) -> re.Pattern[str]:
    return re.compile(rf"([^\W\d_].{{0,9}}?)\1{{{max_repeats},}}")  # cached by re


def markup(pair: Pair, *, unequal: bool) -> bool:
    """A side has HTML tags, entities or subtitle codes; `unequal`: the sides differ in them."""
    if not any("<" in text or "&" in text or "\\" in text for text in pair):
        return False
    src, trg = (Counter(_MARKUP.findall(text)) for text in pair)
    return src != trg if unequal else bool(src or trg)


def number_mismatch(pair: Pair) -> bool:
    """A number of two or more digits has no equivalent on the other side."""
    if not any(_DIGIT.search(text) for text in pair):
        return False
    return numbers_differ(pair.src, pair.trg)


def pair_rules(config: CleanConfig) -> dict[str, Rule]:
    """Return the enabled rules by name, in the order of application."""
    ratio, foreign, repeats = config.max_ratio, config.max_foreign, config.max_repeats
    rules: dict[str, Rule | None] = {
        "empty side": empty,
        "control characters": control_characters if config.control else None,
        "identical sides": identical if config.identical else None,
        "too short": (
            (lambda pair: too_short(pair, config.min_chars)) if config.min_chars > 1 else None
        ),
        "too long": lambda pair: too_long(pair, config.max_chars),
        "length ratio": (lambda pair: length_ratio(pair, ratio)) if ratio is not None else None,
        "no Chinese in source": no_han if config.require_han else None,
        "Chinese in target": han_in_english if config.forbid_han else None,
        "foreign script": (
            (lambda pair: foreign_script(pair, foreign)) if foreign is not None else None
        ),
        "repeated run": (
            (lambda pair: repeated_run(pair, repeats)) if repeats is not None else None
        ),
        "markup": (
            (lambda pair: markup(pair, unequal=config.markup == "unequal"))
            if config.markup != "keep"
            else None
        ),
        "number mismatch": number_mismatch if config.numbers else None,
    }
    return {name: rule for name, rule in rules.items() if rule is not None}
