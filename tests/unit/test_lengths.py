"""Buckets of source length hold every segment once."""

from __future__ import annotations

import pytest

from nmt.errors import NmtError
from nmt.evaluate.lengths import LEAST, make_buckets, parse_bounds, score_buckets, source_length
from nmt.evaluate.metrics import score


def sources(*lengths: int) -> list[str]:
    return ["字" * length for length in lengths]


def test_white_space_is_no_length() -> None:
    assert source_length("我 爱\u3000你\t。") == 4


def test_given_bounds_are_kept_and_empty_buckets_left_out() -> None:
    buckets = make_buckets(sources(1, 10, 11, 20, 21, 99), [10, 20, 50])
    assert [(b.label, b.members) for b in buckets] == [
        ("1-10", [0, 1]), ("11-20", [2, 3]), ("21-50", [4]), ("51+", [5]),
    ]  # fmt: skip
    assert [b.label for b in make_buckets(sources(3, 60), [10, 20, 50])] == ["1-10", "51+"]


@pytest.mark.parametrize("lengths", [[3] * 10, [3] * 100, [1, 700], list(range(300)), [0, 0, 5]])
def test_every_segment_stands_in_one_bucket(lengths: list[int]) -> None:
    buckets = make_buckets(sources(*lengths))
    assert sorted(n for b in buckets for n in b.members) == list(range(len(lengths)))
    assert all(len(b.members) >= LEAST for b in buckets) or len(buckets) == 1
    for bucket in buckets:
        for number in bucket.members:
            assert lengths[number] <= (bucket.high or 10**9)
            assert lengths[number] >= bucket.low or lengths[number] == 0


@pytest.mark.parametrize("bounds", [[], [0, 10], [10, 10], [20, 10]])
def test_bounds_must_rise(bounds: list[int]) -> None:
    with pytest.raises(NmtError, match="not rising whole numbers"):
        make_buckets(sources(1, 2), bounds)


def test_bounds_from_text() -> None:
    assert parse_bounds("10,20, 40") == [10, 20, 40]
    for wrong in ("10,x", "20,10", "5,5", "0,10"):
        with pytest.raises(NmtError, match=f"length bounds {wrong}: not rising"):
            parse_bounds(wrong)


def test_one_bucket_scores_like_the_whole() -> None:
    hypotheses = ["a b c d e", "f g h i"]
    references = ["a b c d f", "f g h j"]
    buckets = make_buckets(sources(2, 3), [10])
    (one,) = score_buckets(buckets, hypotheses, [references])
    assert one.value == score(hypotheses, [references])[0].value
    assert one.interval is not None
