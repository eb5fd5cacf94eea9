"""Examples for the report, and the memory that deciding takes per pair."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config.schema import DataConfig
from nmt.prepare import holdout
from nmt.prepare.decide import CorpusKeys, Decisions, Span, sample_flags
from nmt.prepare.drops import Drops

MAX_BYTES_PER_PAIR = 150  # several arrays of 64 bits at once: 0.3 GB for two million pairs


def peak_memory(pairs: int, shared: tuple[int, ...] = (), cap: int | None = None) -> int:
    """Return the bytes that deciding on so many pairs with random keys allocates at most.

    Args:
        pairs: number of pairs.
        shared: keys that every second pair has in common: 0 source, 1 target, 2 pair.
        cap: of the source.
    """
    keys = np.random.default_rng(1).integers(2**64, size=(4, pairs), dtype=np.uint64)
    keys[1, ::10] = keys[1, 0]  # one large group
    keys[list(shared), 1::2] = 7
    source = {"source": "tsv", "path": "x", "cap": cap}
    config = DataConfig.model_validate({"dir": "x", "sources": [source], "dev": 50, "test": 50})
    excluded = {Path("exam.txt"): np.arange(9, dtype=np.uint64)}
    tracemalloc.start()
    corpus = CorpusKeys(*keys)
    decisions = Decisions(config, corpus, [Span(0, pairs, 1.0, cap)], pairs, Drops())
    decisions.decide(pairs, [], excluded)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.count_nonzero(decisions.split_ids == holdout.DEV) == 50
    return peak


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_examples_are_evenly_spaced(flags: list[bool], count: int) -> None:
    positions = [position for position, flag in enumerate(flags) if flag]
    expected = {positions[i * len(positions) // count] for i in range(count)} if positions else ()
    assert sample_flags(np.array(flags, dtype=bool), count) == sorted(expected)


@pytest.mark.parametrize(
    ("cap", "shared"),
    [(None, ()), (4_000, ()), (None, (0, 1, 2)), (None, (1,)), (None, (0,))],
    ids=["ordinary", "capped", "half one pair", "half one target", "half one source"],
)
def test_memory_per_pair(cap: int | None, shared: tuple[int, ...]) -> None:
    peak_memory(5_000)  # imports allocate as well
    assert peak_memory(100_000, shared, cap) / 100_000 <= MAX_BYTES_PER_PAIR
