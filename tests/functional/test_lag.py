"""Asynchronous updates, prefetching and CUDA graphs do not change the result.

Here on the CPU, which is made to do what a GPU does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.train import loop
from nmt.train.update import Updater
from tests.helpers.command import nmt
from tests.helpers.toy import write_config
from tests.helpers.training import (
    events,
    fingerprint,
    spoil_losses,
    train,
    train_run,
    train_until_signal,
)

pytestmark = pytest.mark.slow

ALL = {
    "ema": 0.99, "weight_decay": 0.01, "keep_best": 2, "epochs": 3, "max_updates": 70,
    "guided_alignment": 0.1, "precision": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_config(tmp_path_factory.mktemp("lag"), train=ALL, model={"dropout": 0.1})
    assert nmt("prepare", "--config", config).code == 0
    return config


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the CPU asynchronous; return the number of pending updates at each launch."""
    pending: list[int] = []
    update = Updater.update

    def counted(self: Updater, *arguments: Any, **keys: Any) -> None:
        pending.append(int(self.pending is not None))
        update(self, *arguments, **keys)

    monkeypatch.setattr(loop, "is_asynchronous", lambda _: True)
    monkeypatch.setattr(loop, "uses_cuda_graphs", lambda _: False)
    monkeypatch.setattr(Updater, "update", counted)
    return pending


@pytest.fixture(scope="module")
def prompt(prepared: Path) -> Path:
    """A run that knows the outcome of each update before the next."""
    return train_run(prepared, prepared.parent / "prompt")


def test_asynchronous_updates_give_the_same_files(
    prepared: Path, prompt: Path, tmp_path: Path, lagging: list[int]
) -> None:
    run = train_run(prepared, tmp_path / "run")
    assert fingerprint(run) == fingerprint(prompt)
    assert len(lagging) == 70  # and not one more than max_updates
    # Nothing is on its way at the first, and after each of the two validations.
    assert lagging.count(0) == 3
    logs = [[r for r in read_journal(folder) if r["kind"] == "log"] for folder in (run, prompt)]
    losses = [[record["loss"] for record in log] for log in logs]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stop", [1, 25])
def test_asynchronous_updates_resume_with_the_same_files(
    prepared: Path, prompt: Path, tmp_path: Path, lagging: list[int], stop: int
) -> None:
    train_until_signal(prepared, tmp_path / "run", stop)
    assert Run.open(tmp_path / "run").info.finished is None
    train_run(prepared, tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(prompt)
    assert 1 in lagging


@pytest.mark.parametrize(
    ("bad", "recorded"),
    [({25}, False), (set(range(31, 36)), False), ({70}, False), (set(range(31, 36)), True)],
    ids=["before a validation", "five", "last", "five, recorded"],
)
def test_asynchronous_updates_skip_and_roll_back_as_synchronous_ones(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: set[int],
    recorded: bool,
) -> None:
    results = []
    for lags in (False, True):
        with monkeypatch.context() as patch:
            spoil_losses(patch, bad, float("nan"))
            patch.setattr(loop, "is_asynchronous", lambda _, lags=lags: lags)
            patch.setattr(loop, "uses_cuda_graphs", lambda _: recorded)
            run = train_run(prepared, tmp_path / f"run-{lags}")
        results.append((fingerprint(run), events(run)))
    assert results[0] == results[1]
    assert results[0][1]


def test_a_skipped_update_changes_neither_weights_nor_moments_nor_average(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    del lagging
    unchanged = []
    update = Updater.update

    def watched(self: Updater, *arguments: Any, **keys: Any) -> None:
        optimizer = self.optimizer

        def snapshot() -> list[torch.Tensor]:
            moments = [t for state in optimizer.adamw.state.values() for t in state.values()]
            weights = [*optimizer.model.parameters(), *optimizer.averaged.parameters()]
            return [tensor.detach().clone() for tensor in (*weights, *moments)]

        before = snapshot()
        update(self, *arguments, **keys)
        same = all(torch.equal(a, b) for a, b in zip(before, snapshot(), strict=True))
        unchanged.append(same)

    monkeypatch.setattr(Updater, "update", watched)
    spoil_losses(monkeypatch, {6}, float("inf"))
    train_run(prepared, tmp_path / "run", "train.max_updates=12")
    assert [number for number, same in enumerate(unchanged, start=1) if same] == [6]


def test_training_fails_after_too_many_rollbacks(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    spoil_losses(monkeypatch, set(range(31, 10_000)), float("nan"))
    result = train(prepared, tmp_path / "run")
    assert result.code == 2
    assert "no finite gradient in 5 consecutive batches, also after 3 rollbacks" in result.err
    assert 1 in lagging


def test_a_captured_training_resumes_with_the_same_bits(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    del lagging
    monkeypatch.setattr(loop, "uses_cuda_graphs", lambda *_: True)
    whole = train_run(prepared, tmp_path / "whole")
    train_until_signal(prepared, tmp_path / "parts", 25)
    train_run(prepared, tmp_path / "parts")
    assert fingerprint(tmp_path / "parts") == fingerprint(whole)
    losses = [record["loss"] for record in read_journal(whole) if record["kind"] == "log"]
    assert losses[-1] < losses[0]
