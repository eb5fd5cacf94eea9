"""Lines in: nothing lost, nothing waited for."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nmt.errors import NmtError
from nmt.translate.streams import argument_lines, arriving_lines, file_lines

LINES = ["我爱中国。", "", "a\u2028b", "x\ry", "\x00", "最后"]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


def flat(windows: Iterator[list[str]]) -> list[str]:
    return [line for window in windows for line in window]


@pytest.mark.parametrize("final", ["\n", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_end_at_line_feeds_only(
    tmp_path: Path, pipe: tuple[int, int], end: str, final: str
) -> None:
    data = (end.join(LINES) + final).encode()
    os.write(pipe[1], b"\xef\xbb\xbf" + data)  # a byte-order mark is no text
    os.close(pipe[1])
    assert flat(arriving_lines(pipe[0], "strict")) == LINES
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert list(file_lines(path, "strict")) == LINES
    assert list(file_lines(path, "replace")) == LINES


def test_a_line_is_there_as_soon_as_it_has_arrived(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    windows = arriving_lines(reader, "strict")
    os.write(writer, "一\n二\n三".encode())
    assert next(windows) == ["一", "二"]
    os.write(writer, "个\n".encode())
    assert next(windows) == ["三个"]
    os.close(writer)
    assert list(windows) == []


def test_half_a_line_is_waited_for(pipe: tuple[int, int]) -> None:
    reader, writer = pipe

    def write() -> None:
        for byte in "我爱\n".encode():
            os.write(writer, bytes([byte]))
            time.sleep(0.01)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    assert list(arriving_lines(reader, "strict")) == [["我爱"]]
    thread.join()


def test_a_fast_writer_fills_windows_and_loses_nothing(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    expected = [f"第{n}行" + "长" * (n % 50) for n in range(20_000)]

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write("\n".join(expected).encode())

    thread = threading.Thread(target=write)
    thread.start()
    windows = []
    for window in arriving_lines(reader, "strict"):
        windows.append(window)
        time.sleep(0.005)  # slower than the writer
    thread.join()
    assert [line for window in windows for line in window] == expected
    assert max(map(len, windows)) <= 2048
    assert len(windows) < 200


def test_a_very_long_line_is_read_in_linear_time(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    text = "长" * 3_000_000

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(text.encode() + b"\nkurz\n")

    thread = threading.Thread(target=write)
    thread.start()
    began = time.process_time()
    assert flat(arriving_lines(reader, "strict")) == [text, "kurz"]
    assert time.process_time() - began < 5
    thread.join()


def test_what_is_not_utf8_names_its_line_after_the_lines_before_it(
    tmp_path: Path, pipe: tuple[int, int]
) -> None:
    data = "好\n".encode() * 3 + b"x\xffy\n" + "好\n".encode()
    os.write(pipe[1], data)
    os.close(pipe[1])
    windows = arriving_lines(pipe[0], "strict")
    assert next(windows) == ["好"] * 3
    with pytest.raises(NmtError) as caught:
        next(windows)
    assert caught.value.message == (
        "standard input:4: not valid UTF-8 (byte 2 of the line is 0xff)"
    )
    assert "--encoding-errors replace" in str(caught.value.hint)
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    assert list(file_lines(path, "replace")) == ["好", "好", "好", "x\ufffdy", "好"]
    with pytest.raises(NmtError, match=r"bad\.txt:4: not valid UTF-8"):
        list(file_lines(path, "strict"))


def test_an_argument_is_one_line_whatever_it_holds() -> None:
    assert list(argument_lines(["a\nb", "", "c"], "strict")) == [["a b", "", "c"]]
    broken = os.fsdecode(b"\xe6\x88")
    with pytest.raises(NmtError, match=r"TEXT:2: not valid UTF-8"):
        list(argument_lines(["a", broken], "strict"))
    assert list(argument_lines([broken], "replace")) == [["\ufffd"]]
