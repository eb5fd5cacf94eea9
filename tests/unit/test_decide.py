"""What deciding on a corpus costs in memory: a few bytes a pair, and no text."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config.schema import DataConfig
from nmt.prepare import decide, keys
from nmt.prepare import holdout as split
from nmt.prepare.chunks import Drops
from nmt.prepare.decide import CorpusKeys, Decisions, Span

# A place, a flag, the label of its group and the place of the group's first pair in the draw.
BYTES_A_PAIR = 1 + 1 + 4 + 4
BLOCK = 1 << 11


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that what is fixed hides nothing of what grows."""
    monkeypatch.setattr(keys, "PART", 1 << 13)
    for module in (keys, split, decide):
        monkeypatch.setattr(module, "BLOCK", BLOCK)


def peak(folder: Path, pairs: int, alike: tuple[int, ...] = (), **data: object) -> int:
    """Bytes that deciding on so many pairs of random keys holds at most.

    Args:
        folder: for the keys.
        pairs: how many.
        alike: which keys every second pair has in common: 0 source, 1 target, 2 pair.
        data: of the configuration.
    """
    folder.mkdir()
    rng = np.random.default_rng(1)
    corpus = CorpusKeys(folder)
    with corpus:
        for start in range(0, pairs, BLOCK):
            some = rng.integers(2**64, size=(3, min(BLOCK, pairs - start)), dtype=np.uint64)
            some[1, ::10] = some[1, 0]  # some targets more than once, so that there are groups
            some[list(alike), 1::2] = 7
            corpus.add(some)
    config = DataConfig.model_validate(
        {"dir": folder, "sources": [{"source": "tsv", "path": "x"}], "dev": 50, "test": 50, **data}
    )
    spans = [Span(0, pairs, 1.0, config.sources[0].cap)]
    tracemalloc.start()
    decisions = Decisions(config, corpus, spans, pairs, Drops())
    decisions.decide(pairs, [], {Path("exam.txt"): np.arange(9, dtype=np.uint64)})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.count_nonzero(decisions.places == split.DEV) == 50
    return most


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_examples_are_taken_from_all_of_the_corpus(flags: list[bool], count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "BLOCK", 7)
        found = decide._spread(np.array(flags, dtype=bool), count)
    at = [place for place, flag in enumerate(flags) if flag]
    assert found == sorted({at[i * len(at) // count] for i in range(count)} if at else [])


@pytest.mark.parametrize(
    ("cap", "alike"),
    [(None, ()), (4_000, ()), (None, (0, 1, 2)), (None, (1,)), (None, (0,))],
    ids=["ordinary", "capped", "half one pair", "half one target", "half one source"],
)
def test_memory_of_a_further_pair(tmp_path: Path, cap: int | None, alike: tuple[int, ...]) -> None:
    sources = [{"source": "tsv", "path": "x", "cap": cap}]
    few, many = 100_000, 200_000
    peak(tmp_path / "first", 5_000)  # modules imported on the way count as well
    less = peak(tmp_path / "few", few, alike, sources=sources)
    grown = peak(tmp_path / "many", many, alike, sources=sources) - less
    assert grown / (many - few) <= BYTES_A_PAIR + 0.5
