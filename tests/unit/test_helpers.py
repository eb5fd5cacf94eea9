"""Processes that align in another's place: what they give, and what happens when they die."""

from __future__ import annotations

import gc
import os
import signal
import time
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nmt.align.aligner import Aligner
from nmt.align.helpers import Helpers
from nmt.data.batches import gather
from nmt.data.packed import PackedSet
from tests.unit.test_aligner import pack

Pair = tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    random = np.random.default_rng(1)
    pairs = [(ids := random.integers(4, 20, 5).tolist(), ids, set()) for _ in range(40)]
    return pack(tmp_path_factory.mktemp("corpus"), pairs)


@pytest.fixture(scope="module")
def learned(corpus: PackedSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learned") / "aligner.safetensors"
    Aligner.learn(corpus).save(path)
    return path


@pytest.fixture
def batch(corpus: PackedSet) -> Pair:
    return (*gather(corpus.src, np.arange(7)), *gather(corpus.trg, np.arange(7)))


def children() -> set[int]:
    return {child.pid for child in active_children() if child.pid is not None}


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process not in children():
            return True
        time.sleep(0.02)
    return False


def test_they_believe_what_is_believed_here(learned: Path, batch: Pair) -> None:
    helpers = Helpers(learned, 2)
    here = Aligner.load(learned).posteriors(*batch)
    for _ in range(4):
        assert helpers.posteriors(*batch).tobytes() == here.tobytes()


def test_they_outlive_ctrl_c_and_end_with_their_object(learned: Path, batch: Pair) -> None:
    before = children()
    helpers = Helpers(learned, 1)
    helpers.posteriors(*batch)
    (process,) = children() - before
    os.kill(process, signal.SIGINT)
    helpers.posteriors(*batch)
    assert process in children()
    del helpers
    gc.collect()
    assert is_gone(process)


def test_the_work_of_one_that_is_killed_is_done_here(
    learned: Path, batch: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    before = children()
    helpers = Helpers(learned, 2)
    here = Aligner.load(learned).posteriors(*batch)
    for process in children() - before:
        os.kill(process, signal.SIGKILL)
        assert is_gone(process)
    for _ in range(5):
        assert helpers.posteriors(*batch).tobytes() == here.tobytes()
    said = capsys.readouterr().err
    assert said.count("a process that aligned batches has ended") == 2
