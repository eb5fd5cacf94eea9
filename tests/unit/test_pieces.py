"""The sample that the pieces are learned from."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt.prepare import pieces
from nmt.prepare.pieces import Sample


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(total=st.integers(0, 60), max_pairs=st.integers(1, 40))
def test_sample_is_bounded_and_evenly_spaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, max_pairs: int
) -> None:
    monkeypatch.setattr(pieces, "_MAX_PAIRS", max_pairs)
    with Sample(tmp_path, total) as sample:
        for number in range(total):
            sample.offer(f"{number}\tn{number}\t\n".encode())
    src, trg = (path.read_text(encoding="utf-8").split() for path in sample.paths)
    assert len(src) == min(total, max_pairs)
    assert trg == [f"n{number}" for number in src]
    places = [-1, *map(int, src)]
    if len(src) > 1:
        gaps = {b - a for a, b in itertools.pairwise(places)}
        assert max(gaps) - min(gaps) <= 1


def test_no_more_characters_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "_MAX_CHARS", 10)
    with Sample(tmp_path, 3) as sample:
        for text in ("1234567", "12345", "123"):
            sample.offer(f"{text}\t{text}\t\n".encode())
    assert sample.paths[0].read_text(encoding="utf-8") == "1234567\n123\n"
