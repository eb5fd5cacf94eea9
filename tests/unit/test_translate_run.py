"""The progress bar of ``nmt translate``."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nmt.translate import run as run_module
from nmt.translate.request import Request
from nmt.translate.types import Translation


class Clock:
    """Replaces `time`; each line takes `seconds_per_line`."""

    def __init__(self, seconds_per_line: float) -> None:
        self.now = 0.0
        self.seconds_per_line = seconds_per_line

    def monotonic(self) -> float:
        return self.now

    def translate(self, line: str) -> Translation:
        self.now += self.seconds_per_line
        return Translation(line, line)


def window_sizes(clock: Clock, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setattr(run_module, "time", clock)
    output: list[str] = []
    sizes = []
    for window in run_module._timed_windows([lines[:100], [], iter(lines[100:])]):
        texts = [clock.translate(line).text for line in window]
        sizes.append(len(texts))
        output += texts
    assert output == lines
    return sizes


@pytest.mark.parametrize(
    ("seconds_per_line", "sizes"),
    [
        (0.0, [64, 36, 256, 512, 1024, 2048, 2048, 112]),
        (0.005, [64, 36, *[256] * 23, 112]),
        (1.0, [64, 36, *[64] * 93, 48]),
    ],
)
def test_windows_are_small_if_lines_are_slow(
    seconds_per_line: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{number}" for number in range(6100)]
    assert window_sizes(Clock(seconds_per_line), lines, monkeypatch) == sizes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class SlowTranslator:
    """Translates windows of up to 2,048 lines; the lines of a window finish together."""

    max_pieces = 100

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def stream(self, lines: Any, *_: int) -> Iterator[Translation]:
        iterator = iter(lines)
        while window := list(itertools.islice(iterator, 2048)):
            yield from [self.clock.translate(line) for line in window]


def test_bar_counts_lines_as_they_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(0.0073)  # 15 s for a window of 2,048 lines
    counts: list[tuple[float, int]] = []
    shown: list[int] = []

    class Bar(run_module.tqdm):  # type: ignore[type-arg]
        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            counts.append((clock.now, int(self.n)))
            return None

        def refresh(self, *_: Any, **__: Any) -> None:
            shown.append(int(self.n))

    (tmp_path / "in").write_text("我\n" * 2200, encoding="utf-8")
    monkeypatch.setattr(run_module, "tqdm", Bar)
    monkeypatch.setattr(run_module, "time", clock)
    streams = SimpleNamespace(stderr=Terminal(), stdin=Terminal(), stdout=io.StringIO())
    monkeypatch.setattr(run_module, "sys", streams)
    request = Request(input=tmp_path / "in", output=tmp_path / "out")
    run_module.run(cast("Any", SlowTranslator(clock)), request)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "我\n" * 2200
    assert counts[-1][1] == 2200
    for now, count in counts:  # at most two seconds of finished lines are not counted yet
        assert count * clock.seconds_per_line > now - 2
    assert shown[-1] == 2200
    assert max(later - earlier for earlier, later in itertools.pairwise(shown)) <= 256
