"""A stopped and resumed training has the same bits as an uninterrupted one."""

import shutil
from pathlib import Path

import pytest

from nmt.data import batches
from nmt.run.directory import Run
from nmt.run.journal import read_journal
from tests.helpers.command import nmt
from tests.helpers.toy import write_config
from tests.helpers.training import fingerprint, newest, train_run, train_until_signal

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
    return train_run(prepared, prepared.parent / "undisturbed")


def test_same_seed_gives_the_same_files(prepared: Path, undisturbed: Path) -> None:
    again = train_run(prepared, prepared.parent / "again")
    assert fingerprint(again) == fingerprint(undisturbed)
    assert len(fingerprint(again)) >= 6


def test_another_seed_gives_other_weights(prepared: Path, undisturbed: Path) -> None:
    reseeded = train_run(prepared, prepared.parent / "other", "train.seed=2")
    assert fingerprint(reseeded) != fingerprint(undisturbed)


@pytest.mark.parametrize("stop", [1, 13, 25, 40])
def test_stop_and_resume_equals_no_stop(prepared: Path, undisturbed: Path, stop: int) -> None:
    folder = prepared.parent / f"stopped{stop}"
    train_until_signal(prepared, folder, stop)
    assert Run.open(folder).info.finished is None
    train_run(prepared, folder)
    assert fingerprint(folder) == fingerprint(undisturbed)


def test_a_resumed_training_keeps_its_block_size(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that started on a CPU and is resumed on a GPU, or the other way round."""
    monkeypatch.setattr(batches, "_BLOCK_TOKENS", {"cpu": 60})
    whole = train_run(prepared, tmp_path / "whole")
    assert Run.open(whole).checkpoints.last_good()[0].state.training["block_tokens"] == 60  # type: ignore[index]
    train_until_signal(prepared, tmp_path / "moved", 5)
    monkeypatch.setattr(batches, "_BLOCK_TOKENS", {"cpu": 240})
    assert fingerprint(train_run(prepared, tmp_path / "moved")) == fingerprint(whole)
    assert fingerprint(train_run(prepared, tmp_path / "other")) != fingerprint(whole)


def test_run_copied_elsewhere_goes_on_and_translates(
    prepared: Path, undisturbed: Path, tmp_path: Path
) -> None:
    train_until_signal(prepared, prepared.parent / "here", 13)
    shutil.move(prepared.parent / "here", tmp_path / "there")
    train_run(prepared, tmp_path / "there")
    assert fingerprint(tmp_path / "there") == fingerprint(undisturbed)
    result = nmt("translate", "--device", "cpu", "--model", tmp_path / "there", "我今天吃苹果。")
    assert result.code == 0
    assert result.out.count("\n") == 1


def test_safe_keys_may_change_and_are_said(prepared: Path, tmp_path: Path) -> None:
    first = ["train.schedule=constant", "train.ema=0"]
    run = train_run(prepared, tmp_path / "run", *first, "train.epochs=1")
    assert len(validations(run)) == 1
    words = [w for key in (f"run={run}", *first, "train.epochs=2") for w in ("--set", key)]
    result = nmt("train", "--config", prepared, "--device", "cpu", *words)
    assert result.code == 0, result.err
    assert "changed for the rest of the training: train.epochs: 1 -> 2" in result.err
    assert "not comparable" not in result.err
    assert len(validations(run)) == 2
    assert Run.open(run).config.train.epochs == 2
    # Nothing but the length was different: the same as two epochs at once.
    whole = train_run(prepared, tmp_path / "whole", *first, "train.epochs=2")
    assert newest(fingerprint(run)) == newest(fingerprint(whole))


def test_another_ruler_on_the_way_is_warned_of(prepared: Path, tmp_path: Path) -> None:
    run = train_run(prepared, tmp_path / "run", "train.epochs=1")
    keys = (f"run={run}", "train.epochs=1", "train.validate_sentences=5")
    words = [word for key in keys for word in ("--set", key)]
    result = nmt("train", "--config", prepared, "--device", "cpu", *words)
    assert result.code == 0, result.err
    assert "dev BLEU is no longer comparable with earlier validations" in result.err


def validations(run: Path) -> list[dict[str, object]]:
    return [r for r in read_journal(run) if r["kind"] == "validation"]


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(
    prepared: Path, undisturbed: Path
) -> None:
    folder = prepared.parent / "damaged"
    train_until_signal(prepared, folder, 13)
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
    train_until_signal(prepared, folder, 13)
    train_run(prepared, folder)
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
