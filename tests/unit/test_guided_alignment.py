"""Word alignments of the training corpus: computed once, packed, read back."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.align.aligner import Aligner
from nmt.config.load import load_config
from nmt.data.alignment import MIN_PROBABILITY, PackedAlignment
from nmt.data.batches import gather, make_batch
from nmt.data.packed import PackedSet
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.prepare.pipeline import prepare
from nmt.run.directory import Run
from nmt.train import guided_alignment
from nmt.train.guided_alignment import add_alignment, align_corpus
from tests.helpers.small import pack_alignment, random_corpus


@pytest.fixture(scope="module")
def corpus() -> PackedSet:
    return random_corpus(40)


@pytest.fixture(scope="module")
def aligner(corpus: PackedSet) -> Aligner:
    return Aligner.learn(corpus)


@pytest.fixture
def run(toy: Path, caplog: pytest.LogCaptureFixture) -> Run:
    caplog.set_level("INFO")
    config = load_config(toy, ["train.guided_alignment=0.1"])
    prepare(config)
    return Run.create(config)


@pytest.fixture
def train_set(run: Run) -> PackedSet:
    return PackedSet.open(run.config.data.dir, "train")


def concatenated(parts: Iterator[PackedAlignment], folder: Path, pairs: int) -> PackedAlignment:
    PackedAlignment.write(folder, {}, parts)
    packed = PackedAlignment.open(folder, {}, pairs)
    assert packed is not None
    return packed


@pytest.mark.parametrize(("part", "cells"), [(1 << 16, 1 << 18), (7, 50), (40, 1)])
def test_packed_alignments_are_the_posteriors_of_the_aligner(
    corpus: PackedSet,
    aligner: Aligner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: int,
    cells: int,
) -> None:
    monkeypatch.setattr(guided_alignment, "_PAIRS_IN_MEMORY", part)
    monkeypatch.setattr(guided_alignment, "_BATCH_CELLS", cells)
    packed = concatenated(align_corpus(aligner, corpus), tmp_path / "alignment", len(corpus))
    pairs = np.array([3, 0, 39, 17])
    src, src_mask = gather(corpus.src, pairs)
    trg, trg_mask = gather(corpus.trg, pairs)
    expected = aligner.posteriors(src, src_mask, trg, trg_mask)
    expected = np.where(expected >= MIN_PROBABILITY, expected, 0)
    matrices = packed.matrices(pairs, src_mask.sum(axis=1), trg.shape[1] + 1)
    assert not matrices[:, -1].any()  # EOS
    np.testing.assert_allclose(matrices[:, :-1], expected, rtol=1e-3, atol=1e-6)


def test_pairs_without_entries_have_zero_matrices() -> None:
    matrices = np.zeros((3, 2, 2), dtype=np.float32)
    matrices[1, 1, 0] = 0.5
    lengths = np.array([2, 1, 2])
    packed = pack_alignment(matrices, lengths)
    np.testing.assert_array_equal(packed.matrices(np.arange(3), lengths, 2), matrices)
    np.testing.assert_array_equal(packed.matrices(np.array([2]), lengths[2:], 2), matrices[2:])


def test_memory_does_not_grow_with_the_number_of_parts(
    aligner: Aligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guided_alignment, "_PAIRS_IN_MEMORY", 100)
    peaks = []
    for pairs in (500, 5000):
        corpus = random_corpus(pairs)
        tracemalloc.start()
        PackedAlignment.write(tmp_path / str(pairs), {}, align_corpus(aligner, corpus))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    lengths = 2 * 8 * (5000 - 500)  # sentence lengths are in memory
    assert peaks[1] < 1.2 * peaks[0] + 3 * lengths


def test_alignments_are_computed_once_and_are_the_same_after_resuming(
    run: Run, train_set: PackedSet, caplog: pytest.LogCaptureFixture
) -> None:
    first = make_batch(add_alignment(run, train_set, Workers()), np.arange(5))
    messages = caplog.text
    assert "word alignment learned from the training pairs" in messages
    assert "training pairs aligned" in messages
    caplog.clear()
    again = make_batch(add_alignment(run, train_set, Workers()), np.arange(5))
    assert "align" not in caplog.text
    assert first.alignment is not None
    assert again.alignment is not None
    assert first.alignment.any()
    assert first.alignment.equal(again.alignment)


def test_interrupted_pass_is_repeated_with_the_same_bytes(
    run: Run, train_set: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_alignment(run, train_set, Workers())
    folder = run.folder / "alignment"
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    folder.rename(tmp_path / "aside")

    def interrupted(*arguments: Any) -> Iterator[PackedAlignment]:
        yield next(align_corpus(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(guided_alignment, "align_corpus", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add_alignment(run, train_set, Workers())
    assert not folder.exists()
    add_alignment(run, train_set, Workers())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_leftovers_of_a_killed_pass_are_removed(
    run: Run, train_set: PackedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> Iterator[PackedAlignment]:
        os.kill(os.getpid(), 9)
        yield from ()

    monkeypatch.setattr(guided_alignment, "align_corpus", killed)
    child = os.fork()
    if not child:
        add_alignment(run, train_set, Workers())
    os.waitpid(child, 0)
    monkeypatch.undo()
    assert list(run.folder.glob(".alignment.*"))
    run.tidy(0)
    assert not list(run.folder.glob(".alignment.*"))
    assert add_alignment(run, train_set, Workers()).alignment is not None


@pytest.mark.parametrize("damage", ["truncated", "another aligner", "missing"])
def test_unusable_alignments_are_computed_again(
    run: Run, train_set: PackedSet, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_alignment(run, train_set, Workers())
    cells = run.folder / "alignment" / "cells.npy"
    expected = cells.read_bytes()
    if damage == "truncated":
        cells.write_bytes(expected[:-1])
    elif damage == "missing":
        cells.unlink()
    else:
        Aligner.learn(train_set, pairs=100).save(run.folder / "aligner.safetensors")
    caplog.clear()
    add_alignment(run, train_set, Workers())
    assert "training pairs aligned" in caplog.text
    assert (cells.read_bytes() == expected) == (damage != "another aligner")


def test_damaged_aligner_is_refused(run: Run, train_set: PackedSet) -> None:
    add_alignment(run, train_set, Workers())
    (run.folder / "aligner.safetensors").write_bytes(b"")
    with pytest.raises(NmtError) as caught:
        add_alignment(run, train_set, Workers())
    assert caught.value.hint == "remove it: nmt train learns it again from the same corpus"


def test_model_without_attention_needs_no_alignments(
    toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = load_config(toy, ["train.guided_alignment=0.1", "model.attention=none"])
    prepare(config)
    run, corpus = Run.create(config), PackedSet.open(config.data.dir, "train")
    assert add_alignment(run, corpus, Workers()) is corpus
    assert "guided alignment: ignored, this model has no attention" in caplog.text
    assert not (run.folder / "aligner.safetensors").exists()
