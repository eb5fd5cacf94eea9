"""Cleaning rules: each says yes to what it is named after and no to its neighbour."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nmt.config.schema import CleanConfig
from nmt.prepare import clean
from nmt.prepare.pair import Pair


@pytest.mark.parametrize(
    ("rule", "src", "trg", "bad"),
    [
        (clean.empty, "一", "\u3000", True),
        (clean.empty, "一", "a", False),
        (clean.identical, "OK ", " OK", True),
        (clean.identical, "OK", "ok", False),
        (clean.control_characters, "一\x00", "one", True),
        (clean.control_characters, "一", "one\ue000", True),
        (clean.control_characters, "一", "\ufffd", True),
        (clean.control_characters, "一\t\u3000", "one", False),
        (clean.no_han, "abc", "abc", True),
        (clean.no_han, "a〇b", "abc", False),
        (clean.no_han, "𠮷", "abc", False),
        (clean.han_in_english, "一", "the 一 sign", True),
        (clean.han_in_english, "一", "the sign", False),
    ],
)
def test_a_rule(rule: Callable[[Pair], bool], src: str, trg: str, bad: bool) -> None:
    assert rule(Pair(src, trg)) is bad


def test_too_long_counts_characters_of_either_side() -> None:
    assert not clean.too_long(Pair("一" * 10, "a"), 10)
    assert clean.too_long(Pair("一" * 11, "a"), 10)
    assert clean.too_long(Pair("一", "a" * 11), 10)


@pytest.mark.parametrize(
    ("src", "trg", "bad"),
    [
        ("好", "a" * 29, False),
        ("好", "a" * 30, True),
        ("好" * 7, "a", False),
        ("好" * 8, "a", True),
    ],
)
def test_length_ratio_allows_short_sentences_to_differ(src: str, trg: str, bad: bool) -> None:
    assert clean.length_ratio(Pair(src, trg), 9.0) is bad


def test_rules_can_be_switched_off() -> None:
    every = set(clean.pair_rules(CleanConfig()))
    fewer = set(clean.pair_rules(CleanConfig(require_han=False, forbid_han=False)))
    assert every - fewer == {"no Chinese in source", "Chinese in target"}


@pytest.mark.parametrize(("markup", "bad"), [("keep", False), ("unequal", False), ("drop", True)])
def test_tags_alike_on_both_sides(markup: str, bad: bool) -> None:
    rules = clean.pair_rules(CleanConfig.model_validate({"markup": markup}))
    assert any(rule(Pair("<b>粗</b>体字", "<b>Bold</b> type.")) for rule in rules.values()) is bad
