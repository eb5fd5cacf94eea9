"""Input lines: complete, bounded, and available as soon as they arrive."""

from __future__ import annotations

import contextlib
import gzip
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from nmt.errors import NmtError
from nmt.io.read import MAX_LINE
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
    os.write(pipe[1], b"\xef\xbb\xbf" + data)  # the byte-order mark is dropped
    os.close(pipe[1])
    assert flat(arriving_lines(pipe[0], "strict")) == LINES
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert list(file_lines(path, "strict")) == LINES
    assert list(file_lines(path, "replace")) == LINES


def test_complete_lines_are_yielded_without_waiting_for_more(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    windows = arriving_lines(reader, "strict")
    os.write(writer, "一\n二\n三".encode())
    assert next(windows) == ["一", "二"]
    os.write(writer, "个\n".encode())
    assert next(windows) == ["三个"]
    os.close(writer)
    assert list(windows) == []


def test_incomplete_line_waits_for_its_end(pipe: tuple[int, int]) -> None:
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


def test_fast_writer_fills_windows_without_loss(pipe: tuple[int, int]) -> None:
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


def test_long_line_is_read_in_linear_time(pipe: tuple[int, int]) -> None:
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


TOO_LONG = "line longer than 16 MB, not text"


def test_line_without_end_is_refused_before_it_fills_the_memory(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    written = 0

    def write() -> None:
        nonlocal written
        os.write(writer, "好\n".encode() * 2)
        with contextlib.suppress(BrokenPipeError):
            while written < 1 << 30:
                written += os.write(writer, b"a" * (1 << 16))

    thread = threading.Thread(target=write)
    thread.start()
    windows = arriving_lines(reader, "replace")
    assert next(windows) == ["好", "好"]
    with pytest.raises(NmtError, match=f"standard input:3: {TOO_LONG}"):
        next(windows)
    os.close(reader)
    thread.join()
    assert written < 1 << 25


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_longest_line_is_read_and_a_longer_one_refused(
    tmp_path: Path, pipe: tuple[int, int], end: bytes
) -> None:
    reader, writer = pipe
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a" * (MAX_LINE - 2) + end + b"a" * (MAX_LINE + 1) + end)

    def write() -> None:
        with os.fdopen(writer, "wb") as file:
            file.write(path.read_bytes())

    thread = threading.Thread(target=write)
    thread.start()
    windows = arriving_lines(reader, "strict")
    assert [len(line) for line in next(windows)] == [MAX_LINE - 2]
    with pytest.raises(NmtError, match=f"standard input:2: {TOO_LONG}"):
        next(windows)
    thread.join()
    lines = file_lines(path, "strict")
    assert len(next(lines)) == MAX_LINE - 2
    with pytest.raises(NmtError, match=rf"lines\.txt:2: {TOO_LONG}"):
        next(lines)


@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_small_archive_of_a_huge_line_is_refused(
    tmp_path: Path, errors: Literal["strict", "replace"]
) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"good\n")
        for _ in range(300):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    lines = file_lines(path, errors)
    assert next(lines) == "good"
    with pytest.raises(NmtError, match=rf"bomb\.gz:2: {TOO_LONG}"):
        next(lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


def test_invalid_utf8_is_refused_with_its_line_after_the_lines_before_it(
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


def test_argument_is_one_line() -> None:
    assert list(argument_lines(["a\nb", "", "c"], "strict")) == [["a b", "", "c"]]
    broken = os.fsdecode(b"\xe6\x88")
    with pytest.raises(NmtError, match=r"TEXT:2: not valid UTF-8"):
        list(argument_lines(["a", broken], "strict"))
    assert list(argument_lines([broken], "replace")) == [["\ufffd"]]
