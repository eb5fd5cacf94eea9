"""Compare the numbers of a Chinese and an English text by value: 二十五 = 25 = twenty-five.

The rule must not drop good pairs, so it requires little: a number written in digits, of two
digits or more, must have an equivalent on the other side in *some* reading. All notations of
the other side are considered: words, 万 and million, 下午三点 for 15:00, 五月 for May.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata

from nmt.text.normalise import nfkc

_DIGITS = re.compile(r"\d+(?:[,，]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?", re.ASCII)
_ZH_DIGITS = dict(
    zip("零〇一二两三四五六七八九俩仨", (0, 0, 1, 2, 2, *range(3, 10), 2, 3), strict=True)
)
_ZH_TENS = {"十": 10, "百": 100, "千": 1000, "廿": 20, "卅": 30}
_ZH_POWERS = {"万": 10**4, "亿": 10**8, "兆": 10**12}
_ZH_NUMBER = re.compile(f"[{''.join([*_ZH_DIGITS, *_ZH_TENS, *_ZH_POWERS])}点半]+")
_ZH_SCALED = re.compile(
    r"(?<!\d)(\d+(?:,\d{3})*(?:\.\d+)?)\s*[多余几来]?\s*([十百千万亿兆]+)", re.ASCII
)
_MAX_VALUE = 10**300  # larger numbers count as equal

_ZH_PART = re.compile(r"(\d+(?:\.\d+)?)([十百千万亿兆]*)", re.ASCII)
# Alternating digits and powers. Final digits must not belong to a year or a decimal.
_ZH_MIXED = re.compile(
    r"(?<!\d)(?:\d+(?:\.\d+)?[十百千万亿兆]+)"
    r"(?:(?:\d+[十百千万亿兆]+)+(?:\d+(?![\d.年]))?|\d{3,}(?![\d.年]))",
    re.ASCII,
)

_ONES = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen",
)
_ORDINALS = re.findall(
    r"\w+",
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth",
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_EN_SMALL: dict[str, int] = {
    **{word: value for value, word in enumerate(_ONES)},
    **{word: value for value, word in enumerate(_ORDINALS)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{word[:-1] + "ies": 10 * value for value, word in enumerate(_TENS, start=2)},  # eighties
    **{word[:-1] + "ieth": 10 * value for value, word in enumerate(_TENS, start=2)},
    "dozen": 12, "dozens": 12, "noon": 12, "midnight": 12, "score": 20, "teens": 10,
}  # fmt: skip
_EN_POWERS = {
    "hundred": 100, "hundreds": 100, "hundredth": 100, "thousand": 10**3, "thousands": 10**3,
    "k": 10**3, "grand": 10**3, "million": 10**6, "millions": 10**6, "m": 10**6, "mn": 10**6,
    "billion": 10**9, "billions": 10**9, "bn": 10**9, "b": 10**9, "trillion": 10**12,
}  # fmt: skip
_ZH_UNIT = re.compile(r"\s*[多余几来]?\s*([十百千万亿兆]+)")
_EN_UNIT = re.compile(rf"[\s-]*({'|'.join(_EN_POWERS)})\b", re.ASCII)
_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215f\u2189]")
_SUPERSCRIPT = re.compile("[\u00b2\u00b3\u00b9\u2070\u2074-\u207b]+")
_EN_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[a-z]+", re.ASCII)


def numbers_differ(zh: str, en: str) -> bool:
    """Whether a number of two digits or more on one side is missing on the other.

    Args:
        zh: Chinese text, in any width and script.
        en: English text.
    """
    zh, en = _in_line(zh), _in_line(en).lower()
    zh = _ZH_MIXED.sub(_joined, _plain_numerals(zh))
    zh_digits, en_digits = _written(zh, _ZH_UNIT), _written(en, _EN_UNIT)
    if not zh_digits and not en_digits:
        return False
    if _sorted_digits(zh) == _sorted_digits(en):
        return False  # 555-1234 and 5551234, 1,5 and 1.5
    return _lacks(zh_digits, english_values(en), en) or _lacks(en_digits, chinese_values(zh), zh)


def _sorted_digits(text: str) -> list[str]:
    return sorted(filter(str.isdecimal, text))


def _in_line(text: str) -> str:
    """Return NFKC of the text with superscripts and fractions as separate numbers (2^52, 1 1/2)."""
    text = _FRACTION.sub(lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", nfkc(text))
    return _SUPERSCRIPT.sub(lambda m: f"^{unicodedata.normalize('NFKC', m[0])}", text)


def _written(text: str, unit: re.Pattern[str]) -> dict[float, float]:
    """Return the numbers of 10 and more in digits, and their value with the unit that follows.

    60 million gives {60: 6e7}; without a unit both are equal.
    """
    values: dict[float, float] = {}
    for match in _DIGITS.finditer(text):
        value = float(match[0].replace(",", "").replace("，", ""))
        if 10 <= value < math.inf:
            scale = unit.match(text, match.end())
            factor = 1.0 if scale is None else _EN_POWERS.get(scale[1]) or _scale(scale[1])
            values[value] = max(values.get(value, 0.0), round(value * factor, 6))
    return values


def _lacks(written: dict[float, float], values: frozenset[float], text: str) -> bool:
    """Whether a number is neither among the values of the other text nor among its digits."""
    digits = "".join(filter(str.isdecimal, text))
    for value, scaled in written.items():
        plain = f"{value:.15g}".replace(".", "")
        if not (_readings(value) & values or scaled in values or plain in digits):
            return True
    return False


def _readings(value: float) -> set[float]:
    """Return the values that another notation may have for this one."""
    readings = {value, round(value)}
    if value < 25:
        readings |= {value - 12, value + 12}  # 15:00 is three in the afternoon
        readings |= {(value - 1) * 100}  # 18世纪, the 1700s
    if 1000 <= value <= 2999:
        readings |= {value % 100, value % 100 - value % 10}  # 90年代
        readings |= {float(value // 100 + 1)} if value % 100 == 0 else set()
    if value < 100:
        readings |= {1900 + value, 2000 + value, 1800 + value}
    readings |= {value / 10, value / 100, value * 10, value * 100}  # 八折 for 20 %; 角 and 分
    readings |= {100 - value, (100 - value) / 10}  # 九折: a discount of 10 %
    return readings


def chinese_values(text: str) -> frozenset[float]:
    """Return the values of all readings of the numbers in `text` (NFKC)."""
    text = _plain_numerals(text)
    values = {float(match.replace(",", "")) for match in _DIGITS.findall(text)}
    for number, powers in _ZH_SCALED.findall(text):
        values.add(round(float(number.replace(",", "")) * _scale(powers), 6))
    for match in _ZH_NUMBER.findall(text):
        values |= _read_chinese(match)
    values |= (
        {(century - 1) * 100 + decade for century in values for decade in values}
        if ("世纪" in text or "世紀" in text)
        else set()
    )  # 20世纪80年代
    values |= {value + 0.5 for value in values}
    if "半小时" in text or "半个" in text or "半個" in text or "半小時" in text:
        values.add(30.0)
    return frozenset(values | _CLOCK if "点" in text else values)


def _scale(powers: str) -> float:
    scale = math.prod(_ZH_TENS.get(power) or _ZH_POWERS[power] for power in powers)
    return float(min(scale, _MAX_VALUE))


def _joined(mixed: re.Match[str]) -> str:
    """Return 3亿5000万 or 1千5百万, alternating digits and powers, in digits."""
    total, section = 0.0, 0.0
    for number, powers in _ZH_PART.findall(mixed[0]):
        large = powers.lstrip("十百千")
        section += float(number) * _scale(powers.removesuffix(large))
        if large:
            scale = _scale(large)
            # 1亿5千万 adds the 万, 3万亿 multiplies it.
            total = total + section * scale if total >= scale else (total + section) * scale
            section = 0.0
    return f"{total + section:.15g}"


_CLOCK = {15.0, 30.0, 45.0}  # 两点半 is 2:30, 一刻 a quarter
_FORMAL = str.maketrans(
    "壹贰叁肆伍陆柒捌玖拾佰仟萬億兩貳參陸點", "一二三四五六七八九十百千万亿两二三六点"
)


def _plain_numerals(text: str) -> str:
    return text.translate(_FORMAL)


@functools.lru_cache(maxsize=4096)
def _read_chinese(numeral: str) -> frozenset[float]:
    """Return the readings of a numeral, which may have decimals: 一点五亿 is 1.5e8."""
    parts = numeral.split("点")
    if len(parts) > 1:
        whole, rest = parts[-2:]
        decimals = rest.rstrip("".join(_ZH_TENS) + "".join(_ZH_POWERS))
        powers = rest[len(decimals) :]
        if decimals and all(c in _ZH_DIGITS for c in decimals):
            fraction = "".join(str(_ZH_DIGITS[c]) for c in decimals)
            integers = (int(value) for value in _read_whole(whole) if value < math.inf)
            scale = _scale(powers)
            scaled = {round(float(f"{value}.{fraction}") * scale, 6) for value in integers}
            if powers and set(powers) & set(_ZH_POWERS):  # else a time: 三点五十 is 3:50
                return frozenset(scaled.union(*map(_read_whole, parts[:-2])))
            return frozenset(scaled.union(*map(_read_whole, parts)))
    return frozenset(set().union(*map(_read_whole, parts)))


def _read_whole(numeral: str) -> set[float]:
    """Return the readings of a numeral without decimals."""
    numeral = numeral.replace("半", "")
    if not numeral:
        return set()
    readings = {_positional(numeral)}
    if all(c in _ZH_DIGITS for c in numeral):
        readings.add(float("".join(str(_ZH_DIGITS[c]) for c in numeral)))  # 一九八四
        readings |= {float(_ZH_DIGITS[c]) for c in numeral}
    return readings


def _positional(numeral: str) -> float:
    total, section, digit = 0, 0, 0
    last = 1
    for character in numeral:
        if character in _ZH_DIGITS:
            digit = _ZH_DIGITS[character]
            if character in "零〇":
                last = 1
        elif character in _ZH_TENS:
            last = _ZH_TENS[character]
            section += last if last in (20, 30) else (digit or 1) * last
            digit = 0
        else:
            last = _ZH_POWERS[character]
            value = section + digit
            # 一亿五千万 adds the 万, 三万亿 multiplies it.
            total = total + value * last if total >= last else (total + value or 1) * last
            section = digit = 0
    # 三万五: a final digit after a power counts a tenth of it.
    return float(min(total + section + digit * (last // 10 if last >= 100 else 1), _MAX_VALUE))


def english_values(text: str) -> frozenset[float]:
    """Return the values of all readings of the numbers in `text` (NFKC, lower case)."""
    values: set[float] = set()
    total, section, seen = 0.0, 0.0, False
    tens = 0  # of the preceding word
    for word in [*_EN_WORD.findall(text), ""]:
        if word[:1].isdigit():
            number = float(word.replace(",", ""))
            values |= {number, total + section + number}
            values |= {number // 100 * 100} if 1000 <= number <= 2999 else set()  # 20世纪
            total, section, seen = 0.0, number, True
        elif word in _EN_SMALL:
            value = _EN_SMALL[word]
            values |= {value, tens + value}
            tens = value if value >= 20 else 0  # one forty-five is a time of the day
            # twenty-five is a sum, nineteen eighty-four a concatenation
            if seen and 10 <= value < 100 and 10 <= section < 100:
                values.add(section * 100 + value)
                section = section * 100 + value
            elif seen and value < 10 and section >= 1000 and section % 10 == 0:
                section += value
                values.add(section)
            else:
                section += value
            seen = True
            values |= {section, total + section}
        elif word in _EN_POWERS:
            power = _EN_POWERS[word]
            section = round((section or 1) * power, 6)
            values |= {section, total + section}
            if power >= 1000:
                total, section = total + section, 0.0
            seen = True
        elif word[:3] in _MONTHS:
            values.add(_MONTHS.index(word[:3]) + 1)
        elif word not in ("and", "a", "of", "point", "th", "st", "nd", "rd", "s"):
            values |= {total + section}
            total, section, seen = 0.0, 0.0, False
    values |= {value + 0.5 for value in values}
    return frozenset(values | _CLOCK if "quarter" in text or "half" in text else values)
