"""Equality 7 of the house: stop and go on equals never having stopped, to the bit."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from nmt.data import batches
from nmt.data.batches import Blocks
from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.train.loop import _Training
from tests.helpers.command import nmt
from tests.helpers.toy import write_config

EMA_AND_ALL = {
    "ema": 0.99, "weight_decay": 0.01, "keep_best": 2, "epochs": 3,
    "guided_alignment": 0.1, "precision": "bfloat16",
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration and its prepared corpus."""
    config = write_config(tmp_path_factory.mktemp("resume"), train=EMA_AND_ALL)
    assert nmt("prepare", "--config", config).code == 0
    return config


@pytest.fixture(scope="module")
def undisturbed(prepared: Path) -> Path:
    """A run that was never stopped."""
    return train(prepared, prepared.parent / "undisturbed")


def train(config: Path, run: Path, *sets: str) -> Path:
    words = [word for key in (f"run={run}", *sets) for word in ("--set", key)]
    result = nmt("train", "--config", config, "--device", "cpu", *words)
    assert result.code == 0, result.err
    return run


def fingerprint(run: Path) -> dict[str, str]:
    """Hash of every tensor file, and every state without the clock's part in it."""
    found = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*.safetensors"))
    }
    for path in sorted(run.glob("checkpoints/*/state.json")):
        state = json.loads(path.read_text())
        del state["checksum"]
        for key in [key for key in state["training"] if "seconds" in key]:
            del state["training"][key]
        found[str(path.relative_to(run))] = json.dumps(state, sort_keys=True)
    return found


def test_same_seed_gives_the_same_files(prepared: Path, undisturbed: Path) -> None:
    again = train(prepared, prepared.parent / "again")
    assert fingerprint(again) == fingerprint(undisturbed)
    assert len(fingerprint(again)) >= 6


def test_another_seed_gives_other_weights(prepared: Path, undisturbed: Path) -> None:
    other = train(prepared, prepared.parent / "other", "train.seed=2")
    assert fingerprint(other) != fingerprint(undisturbed)


@pytest.mark.parametrize("stop", [1, 13, 25, 40])
def test_stop_and_resume_equals_no_stop(prepared: Path, undisturbed: Path, stop: int) -> None:
    folder = prepared.parent / f"stopped{stop}"
    stopped_by_signal(prepared, folder, stop)
    assert Run.open(folder).info.finished is None
    train(prepared, folder)
    assert fingerprint(folder) == fingerprint(undisturbed)


def test_it_goes_on_with_its_blocks_where_others_would_be_made(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that began on a CPU and goes on on a GPU, or the other way round."""
    monkeypatch.setattr(batches, "_BLOCK_TOKENS", {"cpu": 60})
    whole = train(prepared, tmp_path / "whole")
    assert Run.open(whole).checkpoints.last_good()[0].state.training["block_tokens"] == 60  # type: ignore[index]
    stopped_by_signal(prepared, tmp_path / "moved", 5)
    monkeypatch.setattr(batches, "_BLOCK_TOKENS", {"cpu": 240})
    assert fingerprint(train(prepared, tmp_path / "moved")) == fingerprint(whole)
    assert fingerprint(train(prepared, tmp_path / "other")) != fingerprint(whole)


def stopped_by_signal(config: Path, run: Path, update: int) -> None:
    """Train until the end of an update, and let a signal end it there."""
    step = _Training._update

    def update_then_signal(self: _Training, blocks: Blocks) -> bool:
        went_on = step(self, blocks)
        if self.progress.update == update:
            os.kill(os.getpid(), signal.SIGTERM)
        return went_on

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Training, "_update", update_then_signal)
        result = nmt("train", "--config", config, "--device", "cpu", "--set", f"run={run}")
    assert result.code == 130, result.err


def test_run_copied_elsewhere_goes_on_and_translates(
    prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    stopped_by_signal(prepared, prepared.parent / "here", 13)
    shutil.move(prepared.parent / "here", tmp_path / "there")
    train(prepared, tmp_path / "there")
    assert fingerprint(tmp_path / "there") == fingerprint(undisturbed)
    result = nmt("translate", "--device", "cpu", "--model", tmp_path / "there", "我今天吃苹果。")
    assert result.code == 0
    assert result.out.count("\n") == 1


def test_safe_keys_may_change_and_are_said(prepared: Path, tmp_path: Path) -> None:
    first = ["train.schedule=constant", "train.ema=0"]
    run = train(prepared, tmp_path / "run", *first, "train.epochs=1")
    assert len(validations(run)) == 1
    words = [w for key in (f"run={run}", *first, "train.epochs=2") for w in ("--set", key)]
    result = nmt("train", "--config", prepared, "--device", "cpu", *words)
    assert result.code == 0, result.err
    assert "changed for the rest of the training: train.epochs: 1 -> 2" in result.err
    assert "not comparable" not in result.err
    assert len(validations(run)) == 2
    assert Run.open(run).config.train.epochs == 2
    # Nothing but the length was different: the same as two epochs at once.
    whole = train(prepared, tmp_path / "whole", *first, "train.epochs=2")
    assert newest(fingerprint(run)) == newest(fingerprint(whole))


def test_another_ruler_on_the_way_is_warned_of(prepared: Path, tmp_path: Path) -> None:
    run = train(prepared, tmp_path / "run", "train.epochs=1")
    keys = (f"run={run}", "train.epochs=1", "train.validate_sentences=5")
    words = [word for key in keys for word in ("--set", key)]
    result = nmt("train", "--config", prepared, "--device", "cpu", *words)
    assert result.code == 0, result.err
    assert "dev BLEU from now on is not comparable with that before" in result.err


def validations(run: Path) -> list[dict[str, object]]:
    return [r for r in read_journal(run) if r["kind"] == "validation"]


def newest(files: dict[str, str]) -> dict[str, str]:
    last = max(name.split("/")[1] for name in files if name.startswith("checkpoints/"))
    return {name: value for name, value in files.items() if f"/{last}/" in name}


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(
    prepared: Path, undisturbed: Path
) -> None:
    folder = prepared.parent / "damaged"
    stopped_by_signal(prepared, folder, 13)
    newest = Run.open(folder).checkpoints.all()[-1]
    path = newest.folder / "trainer.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    words = ("--config", prepared, "--device", "cpu", "--set", f"run={folder}")
    result = nmt("train", *words)
    assert result.code == 0, result.err
    assert (
        f"warning: {path}: damaged: its checksum differs from the one recorded; "
        "using the previous checkpoint" in result.err
    )
    assert fingerprint(folder) == fingerprint(undisturbed)


def test_journal_of_a_stopped_run_has_no_gap_and_no_repetition(prepared: Path) -> None:
    folder = prepared.parent / "journal"
    stopped_by_signal(prepared, folder, 13)
    train(prepared, folder)
    updates = [r["update"] for r in read_journal(folder) if r["kind"] == "validation"]
    assert updates == sorted(set(updates))
    assert len(updates) == 3


def test_another_precision_is_refused(prepared: Path, undisturbed: Path) -> None:
    result = nmt(
        "train", "--config", prepared, "--device", "cpu", "--set", f"run={undisturbed}",
        "--set", "train.precision=float32",
    )  # fmt: skip
    assert result.code == 2
    assert (
        f"error: {undisturbed}: was started with another configuration: "
        "train.precision was 'bfloat16', is 'float32'" in result.err
    )
