"""Groups, hold-out and caps, compared with plain implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.errors import NmtError
from nmt.prepare import holdout
from nmt.text.keys import Flags, Keys, text_key

pair_numbers = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)


def hashed(numbers: list[int]) -> Keys:
    return np.array([text_key(str(number)) for number in numbers], dtype=np.uint64)


def keys_of(pairs: list[tuple[int, int]]) -> tuple[Keys, Keys]:
    return hashed([a for a, _ in pairs]), hashed([b + 100 for _, b in pairs])


def all_true(pairs: list[tuple[int, int]]) -> Flags:
    return np.ones(len(pairs), dtype=bool)


@given(pair_numbers, st.data())
def test_groups_are_the_connected_components(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    groups = holdout.find_groups(*keys_of(pairs), np.array(wanted, dtype=bool)).tolist()
    expected = [i if w else -1 for i, w in enumerate(wanted)]
    for _ in pairs:  # merge until nothing changes
        for i, (a, b) in enumerate(pairs):
            for j, (c, d) in enumerate(pairs):
                if wanted[i] and wanted[j] and (a == c or b == d):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert groups == expected


@given(pair_numbers, st.integers(0, 3))
def test_held_out_sets_have_their_size_and_whole_groups(
    pairs: list[tuple[int, int]], seed: int
) -> None:
    groups = holdout.find_groups(*keys_of(pairs), all_true(pairs))
    try:
        split_ids = holdout.hold_out(
            groups, keys_of(pairs)[0], {holdout.DEV: 1, holdout.TEST: 2}, seed
        )
    except NmtError:
        # Only groups of one pair are small enough.
        singles = sum(groups.tolist().count(group) == 1 for group in groups.tolist())
        assert singles < 3
        return
    assert (split_ids == holdout.DEV).sum() == 1
    assert (split_ids == holdout.TEST).sum() == 2
    for group in set(groups.tolist()):
        assert len(set(split_ids[groups == group].tolist())) == 1


def test_the_seed_changes_the_held_out_pairs() -> None:
    groups, keys = np.arange(100), np.arange(100, dtype=np.uint64)
    first, second = (holdout.hold_out(groups, keys, {holdout.DEV: 10}, seed) for seed in (1, 2))
    assert first.tolist() != second.tolist()
    assert first.tolist() == holdout.hold_out(groups, keys, {holdout.DEV: 10}, 1).tolist()


def test_added_pairs_move_no_pair_into_a_held_out_set_and_few_out_of_it() -> None:
    random = np.random.default_rng(5)
    keys = random.integers(1 << 63, size=3500).astype(np.uint64)
    wanted = {holdout.DEV: 150, holdout.TEST: 150}
    before = holdout.hold_out(np.arange(3000), keys[:3000], wanted, 1)
    after = holdout.hold_out(np.arange(3500), keys, wanted, 1)[:3000]
    for split_id in wanted:
        assert not ((after == split_id) & (before == holdout.TRAIN)).any()
        assert ((after == split_id) & (before == split_id)).sum() > 110


def test_too_few_pairs_to_hold_out_are_refused() -> None:
    with pytest.raises(NmtError, match="5 pairs after cleaning: too few to hold out 6"):
        holdout.hold_out(np.arange(5), np.arange(5, dtype=np.uint64), {holdout.DEV: 6}, 1)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_a_cap_limits_the_pairs_of_a_source(flags: list[bool], cap: int) -> None:
    wanted = np.array(flags, dtype=bool)
    begin, end = len(flags) // 4, len(flags) // 4 * 3
    over = holdout.over_cap(wanted, begin, end, cap)
    assert not over[:begin].any()
    assert not over[end:].any()
    assert not (over & ~wanted).any()
    assert (wanted & ~over)[begin:end].sum() == min(cap, wanted[begin:end].sum())
