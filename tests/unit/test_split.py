"""Duplicates, place-holders, groups, and the fence, against slow plain code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.errors import NmtError
from nmt.prepare import split

few = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def keys(numbers: list[int]) -> split.Keys:
    return np.array(numbers, dtype=np.uint64)


def test_sentence_key_ignores_case_and_punctuation() -> None:
    assert split.sentence_key("Hello, World!") == split.sentence_key("hello world")
    assert split.text_key("Hello") != split.text_key("hello")


@given(few)
def test_groups_are_the_connected_parts(pairs: list[tuple[int, int]]) -> None:
    groups = split.find_groups(keys([a for a, _ in pairs]), keys([b for _, b in pairs])).tolist()
    expected = list(range(len(pairs)))
    for _ in pairs:  # slow and plain: merge until nothing changes
        for i, (a, b) in enumerate(pairs):
            for j, (c, d) in enumerate(pairs):
                if a == c or b == d:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert groups == expected


@given(few, st.integers(0, 3))
def test_place_holders(pairs: list[tuple[int, int]], most: int) -> None:
    found = split.find_place_holders(
        keys([a for a, _ in pairs]), keys([b for _, b in pairs]), most
    ).tolist()
    assert found == [len({a for a, c in pairs if c == b}) > most for _, b in pairs]


@given(st.lists(st.integers(0, 9)))
def test_duplicates_are_all_but_the_first(values: list[int]) -> None:
    found = split.find_duplicates(keys(values)).tolist()
    assert found == [value in values[:i] for i, value in enumerate(values)]


@given(few, st.integers(0, 3))
def test_held_out_sets_have_their_size_and_whole_groups(
    pairs: list[tuple[int, int]], seed: int
) -> None:
    groups = split.find_groups(keys([a for a, _ in pairs]), keys([b for _, b in pairs]))
    try:
        places = split.hold_out(groups, {split.DEV: 1, split.TEST: 2}, seed)
    except NmtError:
        # One-pair groups are all that fits; each set takes as many as it has pairs.
        singles = sum(groups.tolist().count(group) == 1 for group in groups.tolist())
        assert singles < 3
        return
    assert (places == split.DEV).sum() == 1
    assert (places == split.TEST).sum() == 2
    for group in set(groups.tolist()):
        assert len(set(places[groups == group].tolist())) == 1


def test_another_seed_draws_other_pairs() -> None:
    groups = np.arange(100)
    one, other = (split.hold_out(groups, {split.DEV: 10}, seed) for seed in (1, 2))
    assert one.tolist() != other.tolist()
    assert one.tolist() == split.hold_out(groups, {split.DEV: 10}, 1).tolist()


def test_too_few() -> None:
    with pytest.raises(NmtError, match="5 pairs after cleaning: too few to hold out 6"):
        split.hold_out(np.arange(5), {split.DEV: 6}, 1)
