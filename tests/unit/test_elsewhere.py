"""A function computed in other processes gives what it gives here, and they cause no trouble."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nmt.aligner import Aligner
from nmt.batches import make_batch
from nmt.errors import NmtError
from nmt.train.elsewhere import Elsewhere
from tests.unit.test_aligner import pack


def own_number() -> int:
    return os.getpid()


def die() -> None:
    os._exit(9)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    one = Elsewhere(own_number, 1)
    yield one
    one.close()


def test_an_aligner_believes_the_same_there(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    pairs = [(ids := random.integers(4, 20, 5).tolist(), ids, set()) for _ in range(40)]
    corpus = pack(tmp_path, pairs)
    aligner = Aligner.learn(corpus)
    there = Elsewhere(aligner.posteriors, 2)
    for part in np.split(np.arange(40), 4):
        here = make_batch(corpus, part, aligner.posteriors).alignment
        assert here is not None
        found = make_batch(corpus, part, there).alignment
        assert found is not None
        assert found.numpy().tobytes() == here.numpy().tobytes()
    there.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_to_all_does_not_end_it(elsewhere: Elsewhere, name: str) -> None:
    process = elsewhere()
    assert process != os.getpid()
    os.kill(process, getattr(signal, name))
    assert elsewhere() == process


def test_a_killed_process_is_told_to_the_user() -> None:
    deadly = Elsewhere(die, 1)
    with pytest.raises(NmtError, match="a helper process of the training was killed") as caught:
        deadly()
    assert caught.value.hint == "run the same command again: it goes on from the last checkpoint"
    deadly.close()
