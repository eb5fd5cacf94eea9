"""Lines, compression, `normalise`, keys of leakage and near-duplicate checks."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.errors import NmtError
from nmt.io.read import MAX_LINE, decode_line, open_bytes, read_lines
from nmt.text.normalise import leakage_key, near_duplicate_key, normalise


def lines_of(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / "f.txt"
    path.write_bytes(data)
    return list(read_lines(path))


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        ("a\u2028b\u0085c\x0bd\x1ee\n".encode(), ["a\u2028b\u0085c\x0bd\x1ee"]),
        (b"a\0b\n", ["a\0b"]),
        (b"\n\n\n", ["", "", ""]),
    ],
)
def test_only_newlines_end_lines(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    assert lines_of(tmp_path, data) == lines


@pytest.mark.parametrize(
    ("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_compression_by_suffix(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"f.{suffix}"
    path.write_bytes(compress("一\n二".encode()))
    assert list(read_lines(path)) == ["一", "二"]
    path.write_bytes(compress(b"a\n" * 100000)[:-20])
    with pytest.raises(NmtError, match=r"compressed data is damaged or cut off"):
        list(read_lines(path))


def test_invalid_utf8_is_refused_with_file_and_line() -> None:
    with pytest.raises(NmtError) as caught:
        decode_line("好\n".encode("gb18030"), "a.tsv", 7)
    assert caught.value.message.startswith("a.tsv:7: not valid UTF-8 (byte 1 of the line is 0xba)")


def test_huge_utf16_line_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes(("好\n" + "a" * (MAX_LINE + 1)).encode("utf-16"))
    lines = read_lines(path, "utf-16")
    assert next(lines) == "好"
    with pytest.raises(NmtError, match=r"long\.txt:2: line longer than 16 MB"):
        next(lines)


def test_a_missing_file_suggests_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "train.zh").touch()
    with pytest.raises(NmtError) as caught, open_bytes(tmp_path / "trian.zh"):
        pass
    assert caught.value.message == f"{tmp_path / 'trian.zh'}: no such file"
    assert caught.value.hint == f"did you mean {tmp_path / 'train.zh'}?"


@pytest.mark.parametrize(
    ("text", "simplify", "expected"),
    [
        ("ＡＢＣ１２３，。！", False, "ABC123,。!"),
        ("  a \t b\u3000c\u00a0d\u2028e  ", False, "a b c d e"),
        ("a\u200bb\u00adc\ufeffd\x00e", False, "abcde"),
        ("電腦裡的後面", True, "电脑里的后面"),
        ("電腦裡的後面", False, "電腦裡的後面"),
        ("", True, ""),
        ("👩\u200d🚀", False, "👩\u200d🚀"),
        (
            "❤\ufe0f 1\ufe0f\u20e3 👨\u200d👩\u200d👧",
            False,
            "❤\ufe0f 1\ufe0f\u20e3 👨\u200d👩\u200d👧",
        ),
        ("他\u200d很\ufe0f好 1\ufe0f", False, "他很好 1"),
        (
            "\u200eabc\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2069\u061c\U000e0041d",
            False,
            "abcd",
        ),
        ("葛\U000e0100城 葛\ufe00城", False, "葛城 葛城"),
        ("e\u034f\u0301", False, "é"),
        ("1½ 10² 2⅔ 2⁵² １½", False, "1½ 10² 2⅔ 2⁵² 1½"),
        ("10⁻³ 10₂ H₂O", False, "10⁻³ 10₂ H2O"),
        ("① 第②课 ③2023 5④", False, "1 第2课 ③2023 5④"),
    ],
)
def test_normalise(text: str, simplify: bool, expected: str) -> None:
    assert normalise(text, simplify=simplify) == expected


@given(st.text(), st.booleans())
def test_normalise_is_idempotent(text: str, simplify: bool) -> None:
    once = normalise(text, simplify=simplify)
    assert normalise(once, simplify=simplify) == once
    assert once == " ".join(once.split())  # no tabs and no line ends


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_normalised_text_has_no_line_ends(text: str) -> None:
    assert not set(normalise(text, simplify=False)) & set("\n\r\t\0\u2028\u2029\u0085")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Hello, World!", "hello world", True),
        ("２５。", "25", True),
        ("?!", "...", False),
        ("你好", "您好", False),
        ("", "", True),
    ],
)
def test_leakage_key(first: str, second: str, same: bool) -> None:
    assert (leakage_key(first) == leakage_key(second)) is same


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Hello, World!", "hello world"), ("1,000 men", "1000 men"), ("well-known", "well known"),
        ("a < b", "a<b"), ("1990–1995", "1990-1995"), ("“It's 5.”", "Its 5"), ("？！。", "?!。"),
    ],
)  # fmt: skip
def test_sentences_that_differ_in_punctuation_are_near_duplicates(first: str, second: str) -> None:
    assert near_duplicate_key(first) == near_duplicate_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "-1"), ("x = 1", "x = −1"), ("1.5", "15"), ("C", "C++"), ("C", "C#"), ("a<b", "a>b"),
        ("1+2", "1-2"), ("12", "1-2"), ("5", "5%"), ("3:15", "315"), ("1/2", "12"), ("10²", "102"),
        ("$5", "5"), (".5", "5"), ("1,5", "15"), ("1½", "11⁄2"), ("?!", "..."),
    ],
)  # fmt: skip
def test_sentences_that_differ_in_a_sign_or_operator_are_not_near_duplicates(
    first: str, second: str
) -> None:
    assert near_duplicate_key(first) != near_duplicate_key(second)
