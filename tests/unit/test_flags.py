"""Quality flags of a translation."""

from __future__ import annotations

import pytest
import torch

from nmt.data.lengths import LengthStatistics
from nmt.data.tokenizer import train_tokenizer
from nmt.text.normalise import normalise
from nmt.translate.flags import find_flags, most_repeated
from nmt.translate.search import Hypothesis
from nmt.translate.types import Flag, Part, Translation

LINES = ["我爱中国。", "他有3个苹果。", "今天很好!", "哈哈", "我不知道你为什么要走"] * 5
SRC, _ = train_tokenizer(
    [normalise(line, simplify=True) for line in LINES],
    vocab=300, simplify=True, character_coverage=1.0, space_first=False, name="x",
)  # fmt: skip


def translation(source: str, text: str, *, length: int = 4, unattended: int = 0) -> Translation:
    """Return a translation with uniform attention to all pieces but the last `unattended`."""
    pieces = len(SRC.encode(source))
    attention = torch.zeros(length + 1, pieces)
    attention[:, : pieces - unattended] = 1 / (pieces - unattended)
    return Translation(
        source,
        text,
        -1.0,
        [Part(source, [Hypothesis([7] * length, -2.0, -1.0, attention)], SRC.pieces(source))],
    )


USUAL = LengthStatistics(7, (0.8, 1.2))


def names(line: Translation, usual: LengthStatistics | None = USUAL) -> list[str]:
    return [flag.name for flag in find_flags(line, SRC, usual)]


def test_good_translation_and_blank_line_have_no_flags() -> None:
    assert names(translation("我爱中国。", "I love China.")) == []
    assert names(Translation("", "")) == []


@pytest.mark.parametrize(
    ("source", "is_flagged"),
    [("This is a pen.", True), ("Привет", True), ("OK", False), ("2026!!", False), ("T恤", False)],
)
def test_source_without_chinese_is_flagged(source: str, is_flagged: bool) -> None:
    assert ("script" in names(translation(source, "It is."), None)) == is_flagged


@pytest.mark.parametrize(
    ("source", "text", "is_flagged"),
    [
        ("我爱中国。", "I love, love, love China.", True),
        ("我爱中国。", "of the man of the man of the man", True),
        ("我爱中国。", "I had had had it", True),
        ("我爱中国。", "I had had it", False),
        ("哈哈哈哈", "Ha ha ha ha", False),
        ("哈哈", "Ha ha ha ha ha ha ha", True),
    ],
)
def test_repetition_that_the_source_lacks_is_flagged(
    source: str, text: str, is_flagged: bool
) -> None:
    assert ("repetition" in names(translation(source, text), None)) == is_flagged


def test_most_repeated_returns_sequence_and_count() -> None:
    assert most_repeated([]) == ([], 0)
    assert most_repeated("abc") == ([], 1)
    assert most_repeated("xababab") == ("ab", 3)
    assert most_repeated("aaaa")[1] == 4
    assert most_repeated("abcdefghij" * 5)[1] == 1  # a sequence has at most 8 items


def test_source_with_little_attention_is_flagged() -> None:
    source = "要不知你我么为什道走"
    count = len(SRC.encode(source))
    assert "unattended" not in names(translation(source, "x y z", unattended=1), None)
    flags = find_flags(translation(source, "x y z", unattended=count // 2 + 1), SRC, None)
    assert [flag.name for flag in flags] == ["unattended"]
    assert flags[0].detail.startswith("low attention: ")
    assert flags[0].detail.endswith("走")


def test_differing_numbers_are_flagged() -> None:
    assert names(translation("他有30个苹果。", "He has 30 apples."), None) == []
    assert names(translation("他有三十个苹果。", "He has 30 apples."), None) == []
    assert find_flags(translation("他有３０个苹果。", "He has 13 apples."), SRC, None) == [
        Flag("numbers", "in the source 30; in the translation 13")
    ]


def test_length_ratio_far_from_the_dev_set_is_flagged() -> None:
    source = "要不知你我么为什道走"
    pieces = len(SRC.encode(source))
    assert names(translation(source, "x", length=pieces)) == []
    assert find_flags(translation(source, "x", length=4 * pieces), SRC, USUAL) == [
        Flag("length", f"{4 * pieces} pieces for {pieces} of the source")
    ]
    assert names(translation(source, "x", length=1)) == ["length"]
    assert names(translation(source, "x", length=1), None) == []


def test_length_statistics_are_median_and_quantiles() -> None:
    usual = LengthStatistics.of([7] * 50 + [9] * 50 + [100], [7] * 50 + [9] * 50 + [1])
    assert usual == LengthStatistics(9, (1.0, 1.0))
    # 99 ratios from 4/103 on: the 1 % and 99 % quantiles are at positions 0.98 and 97.02.
    spread = LengthStatistics.of([100] * 99, list(range(1, 100)))
    assert spread.ratio == pytest.approx((4.98 / 103, 101.02 / 103))
    assert LengthStatistics.of([10] * 100, [12] * 100).ratio == pytest.approx((15 / 13, 15 / 13))


def test_characters_outside_the_vocabulary_are_flagged() -> None:
    assert names(translation("我爱龘", "I love", length=5), None) == []
    flags = find_flags(translation("我爱龘靐", "I love", length=8), SRC, None)
    assert flags == [Flag("vocabulary", "2 of 4 characters are not in the vocabulary: 龘靐")]
