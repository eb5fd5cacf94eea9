"""Duplicates, place-holders, groups, and the fence, against slow plain code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt.errors import NmtError
from nmt.prepare import holdout as split
from nmt.prepare import keys

few = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=30)
Write = Callable[[list[int]], keys.KeyFile]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Put small numbers into a key file, spread over all 64 bits as real keys are."""
    folder = tmp_path_factory.mktemp("keys")
    made = iter(range(10**9))

    def write(numbers: list[int]) -> keys.KeyFile:
        file = keys.KeyFile(folder / f"{next(made)}.keys")
        with file:
            file.add(np.array([keys.text_key(str(n)) for n in numbers], dtype=np.uint64))
        return file

    return write


@pytest.fixture(params=["whole", "in parts"])
def _parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as it is, once with blocks and parts so small that every file has many."""
    if request.param == "in parts":
        monkeypatch.setattr(keys, "PART", 3)
        monkeypatch.setattr(keys, "BLOCK", 4)
        monkeypatch.setattr(split, "BLOCK", 8)


any_size = pytest.mark.usefixtures("_parts")
unhurried = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def all_of(pairs: list[tuple[int, int]]) -> split.Flags:
    return np.ones(len(pairs), dtype=bool)


def test_sentence_key_ignores_case_and_punctuation() -> None:
    assert keys.sentence_key("Hello, World!") == keys.sentence_key("hello world")
    assert keys.text_key("Hello") != keys.text_key("hello")


@any_size
@unhurried
@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 9), max_size=5))
def test_a_key_file_gives_back_its_keys(write: Write, values: list[int], few: list[int]) -> None:
    file = write(values)
    want = [keys.text_key(str(value)) for value in values]
    assert [key for _, block in file.blocks() for key in block.tolist()] == want
    found = {int(p): int(k) for at, part in file.parts() for p, k in zip(at, part, strict=True)}
    assert [found[i] for i in range(len(values))] == want
    owners = [{int(k) for k in part} for _, part in file.parts()]
    assert sum(map(len, owners)) == len(set(want))  # equal keys are in one part
    at = np.array(sorted({i for i in few if i < len(values)}), dtype=np.int64)
    assert file.at(at).tolist() == [want[i] for i in at]
    chosen = np.array([keys.text_key(str(value)) for value in few], dtype=np.uint64)
    assert file.among(chosen).tolist() == [value in few for value in values]


@any_size
@unhurried
@given(few, st.data())
def test_groups_are_the_connected_parts(
    write: Write, tmp_path: Path, pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    groups = split.find_groups(
        write([a for a, _ in pairs]),
        write([b + 100 for _, b in pairs]),
        np.array(wanted, dtype=bool),
        tmp_path,
    ).tolist()
    expected = [i if w else -1 for i, w in enumerate(wanted)]
    for _ in pairs:  # slow and plain: merge until nothing changes
        for i, (a, b) in enumerate(pairs):
            for j, (c, d) in enumerate(pairs):
                if wanted[i] and wanted[j] and (a == c or b == d):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert groups == expected
    assert list(tmp_path.iterdir()) == []


@any_size
@unhurried
@given(few, st.integers(0, 3))
def test_place_holders(write: Write, pairs: list[tuple[int, int]], most: int) -> None:
    found = split.find_place_holders(
        write([a for a, _ in pairs]), write([b for _, b in pairs]), most
    ).tolist()
    assert found == [len({a for a, c in pairs if c == b}) > most for _, b in pairs]


@any_size
@unhurried
@given(st.lists(st.integers(0, 9)))
def test_duplicates_are_all_but_the_first(write: Write, values: list[int]) -> None:
    found = split.find_duplicates(write(values), np.ones(len(values), dtype=bool)).tolist()
    assert found == [value in values[:i] for i, value in enumerate(values)]


@any_size
@unhurried
@given(few)
def test_near_duplicates_are_alike_on_both_sides(
    write: Write, pairs: list[tuple[int, int]]
) -> None:
    sides = write([a for a, _ in pairs]), write([b for _, b in pairs])
    found = split.find_near_duplicates(*sides, all_of(pairs)).tolist()
    assert found == [pair in pairs[:i] for i, pair in enumerate(pairs)]


@any_size
@unhurried
@given(few, st.integers(0, 3))
def test_held_out_sets_have_their_size_and_whole_groups(
    write: Write, tmp_path: Path, pairs: list[tuple[int, int]], seed: int
) -> None:
    sides = write([a for a, _ in pairs]), write([b + 100 for _, b in pairs])
    groups = split.find_groups(*sides, all_of(pairs), tmp_path)
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


def test_the_draw_is_the_same_however_large_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(1000, dtype=np.int32) // 3 * 3
    whole = split.hold_out(labels, {split.DEV: 100, split.TEST: 60}, 7)
    monkeypatch.setattr(split, "BLOCK", 16)
    assert split.hold_out(labels, {split.DEV: 100, split.TEST: 60}, 7).tolist() == whole.tolist()


def test_another_seed_draws_other_pairs() -> None:
    groups = np.arange(100)
    one, other = (split.hold_out(groups, {split.DEV: 10}, seed) for seed in (1, 2))
    assert one.tolist() != other.tolist()
    assert one.tolist() == split.hold_out(groups, {split.DEV: 10}, 1).tolist()


def test_too_few() -> None:
    with pytest.raises(NmtError, match="5 pairs after cleaning: too few to hold out 6"):
        split.hold_out(np.arange(5), {split.DEV: 6}, 1)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_a_cap_leaves_that_many_of_its_source(flags: list[bool], cap: int) -> None:
    wanted = np.array(flags, dtype=bool)
    begin, end = len(flags) // 4, len(flags) // 4 * 3
    over = split.over_cap(wanted, begin, end, cap)
    assert not over[:begin].any()
    assert not over[end:].any()
    assert not (over & ~wanted).any()
    assert (wanted & ~over)[begin:end].sum() == min(cap, wanted[begin:end].sum())
