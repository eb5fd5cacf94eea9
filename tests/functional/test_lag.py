"""What training does on a GPU only changes nothing.

Launching an update before the last one's outcome is known, gathering the next batch beside it,
recording: here on the CPU, which is told to do the same.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.train import loop
from tests.functional import test_trouble
from tests.functional.test_resume import fingerprint, stopped_by_signal, train
from tests.functional.test_trouble import events, spoil
from tests.helpers.command import nmt
from tests.helpers.toy import write_config

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
    """The CPU lags too; the list tells how many updates were on their way at each launch."""
    waiting: list[int] = []
    launch = loop._Training._launch

    def counted(self: loop._Training, *arguments: object) -> loop._Launched:
        waiting.append(int(self.launched is not None))
        return launch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "is_launched", lambda _: True)
    monkeypatch.setattr(loop, "is_recorded", lambda *_: False)
    monkeypatch.setattr(loop._Training, "_launch", counted)
    return waiting


@pytest.fixture(scope="module")
def prompt(prepared: Path) -> Path:
    """A run that knows the outcome of each update before the next."""
    return train(prepared, prepared.parent / "prompt")


def test_the_same_files(prepared: Path, prompt: Path, tmp_path: Path, lagging: list[int]) -> None:
    run = train(prepared, tmp_path / "run")
    assert fingerprint(run) == fingerprint(prompt)
    assert len(lagging) == 70  # and not one more than max_updates
    # Nothing is on its way at the first, and after each of the two validations.
    assert lagging.count(0) == 3
    logs = [[r for r in read_journal(folder) if r["kind"] == "log"] for folder in (run, prompt)]
    losses = [[record["loss"] for record in log] for log in logs]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("stop", [1, 25])
def test_the_same_files_after_a_stop(
    prepared: Path, prompt: Path, tmp_path: Path, lagging: list[int], stop: int
) -> None:
    stopped_by_signal(prepared, tmp_path / "run", stop)
    assert Run.open(tmp_path / "run").info.finished is None
    train(prepared, tmp_path / "run")
    assert fingerprint(tmp_path / "run") == fingerprint(prompt)
    assert 1 in lagging


@pytest.mark.parametrize(
    ("bad", "recorded"),
    [({29}, False), (set(range(35, 40)), False), ({74}, False), (set(range(35, 40)), True)],
    ids=["before a validation", "five", "last", "five, recorded"],
)
def test_the_same_files_with_bad_batches(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bad: set[int],
    recorded: bool,
) -> None:
    found = []
    for lags in (False, True):
        with monkeypatch.context() as patch:
            spoil(patch, bad, float("nan"))
            patch.setattr(loop, "is_launched", lambda _, lags=lags: lags)
            patch.setattr(loop, "is_recorded", lambda _: recorded)
            run = train(prepared, tmp_path / f"run-{lags}")
        found.append((fingerprint(run), events(run)))
    assert found[0] == found[1]
    assert found[0][1]


def test_a_bad_batch_changes_neither_weights_nor_moments_nor_average(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    del lagging
    seen = []
    launch = loop._Training._launch

    def watched(self: loop._Training, *arguments: object) -> loop._Launched:
        def snapshot() -> list[torch.Tensor]:
            of_adam = [t for state in self.step.optimizer.state.values() for t in state.values()]
            both = [*self.model.parameters(), *self.averaged.parameters(), *of_adam]
            return [tensor.detach().clone() for tensor in both]

        before = snapshot()
        launched = launch(self, *arguments)  # type: ignore[arg-type]
        same = all(torch.equal(a, b) for a, b in zip(before, snapshot(), strict=False))
        seen.append(same)
        return launched

    monkeypatch.setattr(loop._Training, "_launch", watched)
    spoil(monkeypatch, {10}, float("inf"))
    train(prepared, tmp_path / "run", "train.max_updates=12")
    assert [number for number, same in enumerate(seen) if same] == [5]  # four are the forecast's


def test_trouble_that_does_not_end_is_told_as_promptly(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    del lagging
    test_trouble.test_only_bad_batches_stop_with_an_explanation(prepared, tmp_path, monkeypatch)


def test_a_recorded_training_goes_on_where_it_stopped(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lagging: list[int]
) -> None:
    del lagging
    monkeypatch.setattr(loop, "is_recorded", lambda *_: True)
    whole = train(prepared, tmp_path / "whole")
    stopped_by_signal(prepared, tmp_path / "parts", 25)
    train(prepared, tmp_path / "parts")
    assert fingerprint(tmp_path / "parts") == fingerprint(whole)
    losses = [record["loss"] for record in read_journal(whole) if record["kind"] == "log"]
    assert losses[-1] < losses[0]
