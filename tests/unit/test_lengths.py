"""Buckets of source length: each segment is in exactly one."""

from __future__ import annotations

import pytest

from nmt.errors import NmtError
from nmt.evaluate.lengths import (
    MIN_SEGMENTS,
    make_buckets,
    parse_bounds,
    score_buckets,
    source_length,
)
from nmt.evaluate.metrics import score


def sources(*lengths: int) -> list[str]:
    return ["字" * length for length in lengths]


def test_white_space_does_not_count() -> None:
    assert source_length("我 爱\u3000你\t。") == 4


def test_explicit_bounds_are_kept_and_empty_buckets_removed() -> None:
    buckets = make_buckets(sources(1, 10, 11, 20, 21, 99), [10, 20, 50])
    assert [(b.label, b.members) for b in buckets] == [
        ("1-10", [0, 1]), ("11-20", [2, 3]), ("21-50", [4]), ("51+", [5]),
    ]  # fmt: skip
    assert [b.label for b in make_buckets(sources(3, 60), [10, 20, 50])] == ["1-10", "51+"]


@pytest.mark.parametrize("lengths", [[3] * 10, [3] * 100, [1, 700], list(range(300)), [0, 0, 5]])
def test_each_segment_is_in_one_bucket(lengths: list[int]) -> None:
    buckets = make_buckets(sources(*lengths))
    assert sorted(n for b in buckets for n in b.members) == list(range(len(lengths)))
    assert all(len(b.members) >= MIN_SEGMENTS for b in buckets) or len(buckets) == 1
    for bucket in buckets:
        for number in bucket.members:
            assert lengths[number] <= (bucket.high or 10**9)
            assert lengths[number] >= bucket.low or lengths[number] == 0


@pytest.mark.parametrize("bounds", [[], [0, 10], [10, 10], [20, 10]])
def test_bounds_must_increase(bounds: list[int]) -> None:
    with pytest.raises(NmtError, match="not increasing whole numbers"):
        make_buckets(sources(1, 2), bounds)


def test_bounds_from_text() -> None:
    assert parse_bounds("10,20, 40") == [10, 20, 40]
    for wrong in ("10,x", "20,10", "5,5", "0,10"):
        with pytest.raises(NmtError, match=f"length bounds {wrong}: not increasing"):
            parse_bounds(wrong)


def test_a_single_bucket_has_the_score_of_the_whole_set() -> None:
    hypotheses = ["a b c d e", "f g h i"]
    references = ["a b c d f", "f g h j"]
    buckets = make_buckets(sources(2, 3), [10])
    (result,) = score_buckets(buckets, hypotheses, [references])
    assert result.value == score(hypotheses, [references])[0].value
    assert result.interval is not None
