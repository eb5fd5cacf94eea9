"""The run directory: saving, keeping, finding damage, averaging."""

import errno
import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import safetensors
import torch

import nmt.run.checkpoints
from nmt.config.load import load_config
from nmt.errors import NmtError
from nmt.prepare.pipeline import prepare
from nmt.run import directory
from nmt.run.checkpoints import Checkpoint, CheckpointState
from nmt.run.directory import Run, RunInfo, newest_run
from nmt.run.records import dump_record, load_record
from tests.helpers.toy import write_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_config(tmp_path_factory.mktemp("checkpoint"))
    prepare(load_config(path))
    return path


@pytest.fixture
def run(config_path: Path, tmp_path: Path) -> Run:
    config = load_config(config_path, [f"run={tmp_path / 'run'}", "train.keep_best=1"])
    return Run.create(config)


def save(run: Run, update: int, bleu: float | None = None, fill: float = 0.0) -> None:
    model = {name: torch.full_like(t, fill) for name, t in run.build_model().state_dict().items()}
    trainer = {"x": torch.full((3,), float(update))}
    run.checkpoints.save({"update": update}, model, trainer, bleu)


def kept(run: Run) -> list[int]:
    return [checkpoint.update for checkpoint in run.checkpoints.all()]


def names(run: Run) -> list[str]:
    return sorted(path.name for path in (run.folder / "checkpoints").iterdir())


def test_tensors_and_state_are_restored(run: Run) -> None:
    save(run, 5, fill=0.25)
    restored = run.checkpoints.last_good()
    assert restored is not None
    checkpoint, tensors = restored
    assert checkpoint.update == 5
    assert tensors["trainer"]["x"].tolist() == [5.0, 5.0, 5.0]
    assert all((t == 0.25).all() for t in tensors["model"].values())


def test_without_a_checkpoint_there_is_none_to_resume_from(run: Run) -> None:
    assert run.checkpoints.last_good() is None


def test_last_two_and_the_best_are_kept(run: Run) -> None:
    for update, bleu in ((1, 3.0), (2, 9.0), (3, 5.0), (4, None), (5, None)):
        save(run, update, bleu)
    assert kept(run) == [2, 4, 5]
    assert run.checkpoints.best().update == 2


def test_the_later_of_equal_checkpoints_is_the_best(run: Run) -> None:
    for update in (1, 2, 3):
        save(run, update, 7.0)
    assert run.checkpoints.best().update == 3


def test_keep_best_checkpoints_are_kept(config_path: Path, tmp_path: Path) -> None:
    config = load_config(config_path, [f"run={tmp_path / 'run'}", "train.keep_best=3"])
    run = Run.create(config)
    for update, bleu in enumerate((9.0, 8.0, 1.0, 7.0, None, None), start=1):
        save(run, update, bleu)
    assert kept(run) == [1, 2, 4, 5, 6]


def test_update_0_is_never_the_best(run: Run) -> None:
    save(run, 0)
    with pytest.raises(NmtError, match="no checkpoint yet"):
        run.checkpoints.best()


def test_saved_again_at_the_same_update_keeps_its_score(run: Run) -> None:
    save(run, 5, 12.0)
    before = (run.checkpoints.all()[0].folder / "model.safetensors").stat().st_mtime_ns
    save(run, 5)
    assert run.checkpoints.all()[0].dev_bleu == 12.0
    assert (run.checkpoints.all()[0].folder / "model.safetensors").stat().st_mtime_ns == before


def test_full_disk_leaves_the_earlier_checkpoints(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1)

    def full(*_: object) -> None:
        # What safetensors says of a full disk.
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(nmt.run.checkpoints, "save_file", full)
    with pytest.raises(NmtError, match="the disk is full; nothing was left half-written"):
        save(run, 2)
    assert names(run) == ["00000001"]
    assert run.checkpoints.last_good() is not None


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failure_in_any_step_leaves_no_files(
    run: Run, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    save(run, 1)

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = "nmt.io.write.os.fsync" if call == "fsync" else "pathlib.Path.rename"
    with monkeypatch.context() as patch:
        patch.setattr(target, fails)
        with pytest.raises(NmtError, match="the disk is full"):
            save(run, 2)
    assert names(run) == ["00000001"]


@pytest.mark.parametrize("name", ["model", "trainer"])
def test_damaged_newest_falls_back_with_a_warning(
    run: Run, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, 1)
    save(run, 2)
    path = run.checkpoints.all()[-1].folder / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    restored = run.checkpoints.last_good()
    assert restored is not None
    assert restored[0].update == 1
    assert (
        f"warning: {path}: damaged: its checksum differs from the one recorded; "
        "using the previous checkpoint" in capsys.readouterr().err
    )


def test_a_run_with_only_damaged_checkpoints_is_refused(run: Run) -> None:
    save(run, 1)
    save(run, 2)
    for path in run.folder.glob("checkpoints/*/model.safetensors"):
        path.unlink()
    with pytest.raises(NmtError, match="all checkpoints are damaged"):
        run.checkpoints.last_good()


@pytest.mark.parametrize("state", ["", "{", "[]", "3", "{}", '{"update": 2}'])
def test_a_checkpoint_with_a_damaged_state_is_ignored(
    run: Run, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, 1)
    save(run, 2)
    (run.folder / "checkpoints/00000002/state.json").write_text(state)
    assert kept(run) == [1]
    assert "checkpoint ignored" in capsys.readouterr().err


def test_resuming_removes_leftovers_of_a_kill(run: Run) -> None:
    save(run, 1)
    save(run, 2)
    (run.folder / "checkpoints/00000002/state.json").write_text("{")
    (run.folder / "checkpoints/.00000003.0000000a.part").mkdir()
    (run.folder / "checkpoints/00000001/.state.json.0000000c.part").write_text("{")
    (run.folder / ".run.json.0000000b.part").write_text("{")
    (run.folder / ".mine").write_text("user file")
    run.tidy(1)
    assert names(run) == ["00000001"]
    assert (run.folder / ".mine").exists()
    assert not list(run.folder.rglob(".*.part"))


def test_checkpoint_of_another_network_is_refused(run: Run) -> None:
    save(run, 1)
    path = run.folder / "checkpoints/00000001/state.json"
    state = load_record(path, CheckpointState)
    path.write_bytes(dump_record(state.model_copy(update={"identity": "another"})))
    with pytest.raises(NmtError, match="belongs to another run"):
        run.checkpoints.all()


def test_a_second_training_in_a_run_directory_is_refused(run: Run) -> None:
    with (
        run.locked(),
        pytest.raises(NmtError, match="locked by another nmt train"),
        Run.open(run.folder).locked(),
    ):
        pass
    with run.locked():
        pass  # free again


def test_the_newest_run_is_the_last_finished(run: Run, config_path: Path) -> None:
    parent = run.folder.parent
    with pytest.raises(NmtError, match="no finished run in it"):
        newest_run(parent)
    run.mark_finished()
    config = load_config(config_path, [f"run={parent / 'other'}"])
    Run.create(config).mark_finished()
    Run.create(config.model_copy(update={"run": parent / "unfinished"}))
    assert newest_run(parent) == parent / "other"


def finish(config_path: Path, folder: Path, bleu: float | None) -> None:
    run = Run.create(load_config(config_path, [f"run={folder}"]))
    save(run, 3, bleu)
    run.mark_finished()


def test_newest_run_prefers_validated_runs_and_reports_a_better_one(
    config_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="nmt")
    finish(config_path, tmp_path / "untested", None)
    assert newest_run(tmp_path) == tmp_path / "untested"
    assert caplog.messages == [
        f"model: {tmp_path}/untested (not validated, finished less than a minute ago)"
    ]
    finish(config_path, tmp_path / "good", 23.46)
    finish(config_path, tmp_path / "toy", 0.0)
    finish(config_path, tmp_path / "untested2", None)
    caplog.clear()
    assert newest_run(tmp_path) == tmp_path / "toy"
    assert caplog.messages == [
        f"model: {tmp_path}/toy (dev BLEU 0.0, finished less than a minute ago)",
        f"note: {tmp_path}/good has a higher dev BLEU (23.5); name it to use it",
    ]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (59, "less than a minute ago"), (60, "1 minute ago"), (7199, "1 hour ago"),
        (7200, "2 hours ago"), (40 * 86_400, "40 days ago"),
    ],
)  # fmt: skip
def test_ages_are_in_the_largest_unit(seconds: int, age: str) -> None:
    time = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    assert directory._age(time) == age


def test_a_best_checkpoint_removed_while_it_is_read_is_replaced(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1, 5.0, fill=1.0)
    load = Checkpoint.load

    def goes(self: Checkpoint, name: str, device: torch.device) -> dict[str, torch.Tensor]:
        if self.update == 1:  # a training at work saves a better one and prunes
            save(run, 2, 9.0, fill=2.0)
            shutil.rmtree(self.folder)
        return load(self, name, device)

    monkeypatch.setattr(Checkpoint, "load", goes)
    update, model = run.load_model(CPU)
    assert update == 2
    assert all(bool((p == 2.0).all()) for p in model.parameters())


FILES = ["run.json", "config.yaml", "src.model", "trg.model", "checkpoints/00000001/state.json"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_an_error_and_never_a_traceback(run: Run, name: str) -> None:
    save(run, 1)
    path = run.folder / name
    data = path.read_bytes()
    bits = len(data) * 8
    for bit in range(0, bits, max(1, bits // 400) | 1):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(NmtError):
            Run.open(run.folder).checkpoints.best()
    path.write_bytes(data)
    Run.open(run.folder).checkpoints.best()


def test_a_config_cut_at_a_line_end_is_refused(run: Run) -> None:
    path = run.folder / "config.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for count in range(len(lines)):
        path.write_text("".join(lines[:count]), encoding="utf-8")
        with pytest.raises(NmtError, match="damaged: its checksum differs"):
            Run.open(run.folder)


@pytest.mark.parametrize("name", [*FILES, "checkpoints/00000001/model.safetensors", "dev.src.txt"])
@pytest.mark.parametrize("kind", ["sparse", "device", "pipe"])
def test_only_regular_files_of_the_recorded_size_are_read(run: Run, name: str, kind: str) -> None:
    save(run, 1)
    path = run.folder / name
    path.unlink()
    if kind == "sparse":
        with path.open("wb") as file:
            file.truncate(10 << 30)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)

    def read() -> None:
        opened = Run.open(run.folder)
        opened.text("dev", "src")
        opened.checkpoints.load_best(CPU)

    with pytest.raises(NmtError):
        read()


def test_a_kill_while_the_config_is_replaced_leaves_a_run_that_opens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = run.config.train.model_copy(update={"epochs": 77})
    changed = run.config.model_copy(update={"train": train})

    def killed(name: str, data: bytes) -> None:
        if name == "config.yaml":
            raise KeyboardInterrupt
        write(name, data)

    write = run._write
    monkeypatch.setattr(run, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        run.replace_config(changed)
    assert Run.open(run.folder).config == run.config
    monkeypatch.undo()
    run.replace_config(changed)
    assert Run.open(run.folder).config.train.epochs == 77


def test_a_newer_format_is_refused(run: Run) -> None:
    info = load_record(run.folder / "run.json", RunInfo).model_copy(update={"format": 99})
    (run.folder / "run.json").write_bytes(dump_record(info))
    with pytest.raises(NmtError, match="format 99, this program reads up to 1"):
        Run.open(run.folder)


def test_length_statistics_of_dev_are_recorded(run: Run) -> None:
    for side in ("src", "trg"):
        (run.folder / f"dev.{side}.txt").unlink()
    statistics = Run.open(run.folder).info.length_statistics
    assert statistics is not None
    assert 0 < statistics.ratio[0] <= statistics.ratio[1]
