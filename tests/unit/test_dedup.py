"""Duplicates and placeholder targets, compared with slow plain implementations."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nmt.prepare import dedup
from nmt.text import keys
from nmt.text.keys import Keys

pair_numbers = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def hashed(numbers: list[int]) -> Keys:
    return np.array([keys.text_key(str(number)) for number in numbers], dtype=np.uint64)


def test_sentence_key_ignores_case_and_punctuation() -> None:
    assert keys.sentence_key("Hello, World!") == keys.sentence_key("hello world")
    assert keys.text_key("Hello") != keys.text_key("hello")


@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 9), max_size=5))
def test_membership(values: list[int], members: list[int]) -> None:
    flags = keys.is_member(hashed(values), hashed(members))
    assert flags.tolist() == [value in members for value in values]


@given(pair_numbers, st.integers(0, 3))
def test_placeholder_targets(pairs: list[tuple[int, int]], max_sources: int) -> None:
    flags = dedup.find_placeholder_targets(
        hashed([a for a, _ in pairs]), hashed([b for _, b in pairs]), max_sources
    )
    expected = [len({a for a, c in pairs if c == b}) > max_sources for _, b in pairs]
    assert flags.tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans())))
def test_duplicates_are_all_but_the_first(values: list[tuple[int, bool]]) -> None:
    wanted = np.array([w for _, w in values], dtype=bool)
    flags = dedup.find_duplicates(hashed([v for v, _ in values]), wanted)
    assert flags.tolist() == [w and (v, True) in values[:i] for i, (v, w) in enumerate(values)]
