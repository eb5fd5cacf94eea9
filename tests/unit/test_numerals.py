"""Numbers by value, in every notation that means the same."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.text.numerals import chinese_values, english_values, numbers_differ

SAME = [
    ("他有二十五本书", "He has 25 books."),
    ("他有２５本书", "He has 25 books."),
    ("他有25本书", "He has twenty-five books."),
    ("一九八四年", "1984"),
    ("1984年", "nineteen eighty-four"),
    ("1984年", "in '84"),
    ("20世纪90年代", "the 1990s"),
    ("18世纪", "the 1700s"),
    ("19世纪", "the nineteenth century"),
    ("三万五", "35,000"),
    ("3.5万人", "35,000 people"),
    ("1.5亿", "150 million"),
    ("一亿五千万", "150,000,000"),
    ("九万八千美元", "$98,000"),
    ("5月15日", "May 15th"),
    ("下午三点半", "3:30 p.m."),
    ("15点", "3 p.m."),
    ("两点一刻", "2:15"),
    ("1点45分", "at one forty - five"),
    ("百分之二十", "20%"),
    ("12个", "a dozen"),
    ("壹佰贰拾元", "120 yuan"),
    ("一百零五", "105"),
    ("三点一四一五九", "3.14159"),
    ("555-1234", "5551234"),
    ("二百三", "230"),
    ("两千零一夜", "2001 nights"),
    ("没有数字", "No numbers at all."),
    ("第2章", "Chapter two"),
    ("有15萬人", "150,000 people"),
    ("3.5萬", "35,000"),
    ("3亿5000万", "350 million"),
    ("1亿2000万", "$120 million"),
    ("2万5千", "25,000"),
    ("12万3千", "123,000"),
    ("3万5000人", "35,000 people"),
    ("投资1千5百万美元", "15 million dollars"),
    ("1千2百万人", "12 million people"),
    ("2亿3千5百万", "235 million"),
    ("5百6十亿", "56 billion"),
    ("1百2十3万", "1.23 million"),
    ("一年有3百6十5天", "365 days a year"),
    ("价格是3千5百20元", "The price is 3,520 yuan."),
    ("2022年是10万2023年是20万", "100,000 in 2022 and 200,000 in 2023"),
    ("请在3天内拨打13812345678。", "Call 138-1234-5678 within three days."),
    ("9" * 400, "9" * 400),
    ("花了六千万美元", "It cost $60 million."),
    ("人口一亿三千七百万", "a population of 137 million"),
    ("80年代的音乐", "music of the eighties"),
    ("她30多岁", "She is in her thirties."),
    ("十点五万人", "105,000 people"),
    ("35万人", "three hundred and fifty thousand people"),
    ("二十五万人", "250 thousand people"),
    ("2⁵²个", "2^52 of them"),
    ("长12½英寸", "12.5 inches long"),
    ("三点五十", "3:50"),
    ("给予九折优惠", "a 10% discount"),
    ("现在7点45分", "It's quarter to eight."),
    ("等了半小时", "waited for 30 minutes"),
]
DIFFERENT = [
    ("他有25本书", "He has 26 books."),
    ("这块塑料是透明的", "placeholder-p10"),
    ("公元两千年以后", "in 2008 AD"),
    ("高达三十五英尺", "A 50 foot spire."),
    ("二十世纪四十年代", "the 1980s"),
    ("1701年至1750年", "Between 1701 and 1850"),
    ("１２３４元", "1235 yuan"),
    ("3亿5000万", "450 million"),
    ("9" * 400, "8" * 40 + "7"),
]


@pytest.mark.parametrize(("zh", "en"), SAME)
def test_the_same_numbers(zh: str, en: str) -> None:
    assert not numbers_differ(zh, en)


@pytest.mark.parametrize(
    "zh", ["他有1" + "亿" * 40 + "000", "一" * 320 + "点一 10", "三" + "亿" * 60 + " 10", "9" * 400]
)
def test_very_large_numbers_are_compared(zh: str) -> None:
    assert numbers_differ(zh, "He has 77 books.")


@pytest.mark.parametrize("zh", ["一" + "点一" * 3000 + " 10", "1" * 30_000 + " 10"])
def test_time_is_linear_in_long_numerals(zh: str) -> None:
    began = time.process_time()
    assert numbers_differ(zh, "He has 77 books.")
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("zh", "en"), DIFFERENT)
def test_different_numbers(zh: str, en: str) -> None:
    assert numbers_differ(zh, en)


def chinese(value: int) -> str:
    """A number below a hundred million as it is written out."""
    if value >= 10000:
        low = value % 10000
        zero = "零" if 0 < low < 1000 else ""
        return chinese(value // 10000) + "万" + zero + (chinese(low) if low else "")
    out = ""
    for power, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // power % 10
        if digit:
            out += "零一二三四五六七八九"[digit] + name
        elif out and value % power and not out.endswith("零"):
            out += "零"
    return out


@given(st.integers(1, 99_999_999))
def test_every_number_written_out_is_read(value: int) -> None:
    assert value in chinese_values(chinese(value))


@given(st.integers(1, 99_999_999))
def test_a_number_agrees_with_itself_in_every_notation(value: int) -> None:
    for zh in (chinese(value), str(value), f"{value:,}"):
        for en in (str(value), f"{value:,}"):
            assert not numbers_differ(f"共{zh}个。", f"There are {en} of them.")


@given(st.text(), st.text())
def test_any_text_is_accepted(zh: str, en: str) -> None:
    numbers_differ(zh, en)
    numbers_differ(zh + "12", en + "１３")


@pytest.mark.parametrize(
    ("text", "value"),
    [("two hundred and five", 205), ("a hundred", 100), ("three million", 3_000_000),
     ("5k", 5000), ("ninety-nine", 99), ("1.5 billion", 1.5e9), ("nineteen sixty", 1960)],
)  # fmt: skip
def test_english_words(text: str, value: float) -> None:
    assert value in english_values(text)


@pytest.mark.parametrize(
    ("text", "value", "misreading"),
    [("一点五亿", 1.5e8, 5e8), ("十点五万", 105_000, 50_000), ("三点二千万", 3.2e7, 2e7)],
)
def test_decimals_with_powers(text: str, value: float, misreading: float) -> None:
    assert value in chinese_values(text)
    assert misreading not in chinese_values(text)
