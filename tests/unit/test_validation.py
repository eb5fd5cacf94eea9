from __future__ import annotations

from nmt.train.validation import evenly_spread


def test_spread_takes_evenly_and_in_order() -> None:
    assert evenly_spread(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert evenly_spread(list(range(7)), 3) == [0, 2, 4]


def test_spread_takes_all_of_a_short_list_and_none_of_any() -> None:
    assert evenly_spread([1, 2], 5) == [1, 2]
    assert evenly_spread([], 5) == []
    assert evenly_spread([1, 2], 0) == []
