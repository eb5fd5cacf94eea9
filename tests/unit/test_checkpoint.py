"""The run directory: saving, keeping, finding damage, averaging."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import safetensors
import torch

import nmt.run.directory
from nmt.config.load import load_config
from nmt.errors import NmtError
from nmt.prepare.pipeline import prepare
from nmt.run.directory import Checkpoint, Run, newest_run
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
    run.save({"update": update, "dev_bleu": bleu}, model, {"x": torch.full((3,), float(update))})


def kept(run: Run) -> list[int]:
    return [checkpoint.update for checkpoint in run.checkpoints()]


def names(run: Run) -> list[str]:
    return sorted(path.name for path in (run.folder / "checkpoints").iterdir())


def test_tensors_and_state_come_back(run: Run) -> None:
    save(run, 5, fill=0.25)
    found = run.last_good()
    assert found is not None
    checkpoint, tensors = found
    assert checkpoint.update == 5
    assert tensors["trainer"]["x"].tolist() == [5.0, 5.0, 5.0]
    assert all((t == 0.25).all() for t in tensors["model"].values())


def test_no_checkpoint_is_none_to_go_on_from(run: Run) -> None:
    assert run.last_good() is None


def test_last_two_and_the_best_are_kept(run: Run) -> None:
    for update, bleu in ((1, 3.0), (2, 9.0), (3, 5.0), (4, None), (5, None)):
        save(run, update, bleu)
    assert kept(run) == [2, 4, 5]
    assert run.best().update == 2


def test_of_equals_the_later_one_is_best(run: Run) -> None:
    for update in (1, 2, 3):
        save(run, update, 7.0)
    assert run.best().update == 3


def test_keep_best_checkpoints_are_kept(config_path: Path, tmp_path: Path) -> None:
    config = load_config(config_path, [f"run={tmp_path / 'run'}", "train.keep_best=3"])
    run = Run.create(config)
    for update, bleu in enumerate((9.0, 8.0, 1.0, 7.0, None, None), start=1):
        save(run, update, bleu)
    assert kept(run) == [1, 2, 4, 5, 6]


def test_update_0_has_learned_nothing_and_is_not_the_best(run: Run) -> None:
    save(run, 0)
    with pytest.raises(NmtError, match="no checkpoint yet"):
        run.best()


def test_saved_again_at_the_same_update_keeps_its_score(run: Run) -> None:
    save(run, 5, 12.0)
    before = (run.checkpoints()[0].folder / "model.safetensors").stat().st_mtime_ns
    save(run, 5)
    assert run.checkpoints()[0].dev_bleu == 12.0
    assert (run.checkpoints()[0].folder / "model.safetensors").stat().st_mtime_ns == before


def test_full_disk_leaves_the_earlier_checkpoints(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1)

    def full(*_: object) -> None:
        # What safetensors says of a full disk.
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(nmt.run.directory, "save_file", full)
    with pytest.raises(NmtError, match="the disk is full; nothing was left half-written"):
        save(run, 2)
    assert names(run) == ["00000001"]
    assert run.last_good() is not None


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_failing_in_any_step_leaves_nothing_behind(
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
    path = run.checkpoints()[-1].folder / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = run.last_good()
    assert found is not None
    assert found[0].update == 1
    assert (
        f"warning: {path}: damaged: its checksum differs from the one recorded; "
        "going back to the checkpoint before" in capsys.readouterr().err
    )


def test_nothing_but_damage_is_refused_and_not_begun_anew(run: Run) -> None:
    save(run, 1)
    save(run, 2)
    for path in run.folder.glob("checkpoints/*/model.safetensors"):
        path.unlink()
    with pytest.raises(NmtError, match="none of the checkpoints in it is whole"):
        run.last_good()


@pytest.mark.parametrize("state", ["", "{", "[]", "3", "{}", '{"update": 2}'])
def test_damaged_state_is_passed_over(
    run: Run, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, 1)
    save(run, 2)
    (run.folder / "checkpoints/00000002/state.json").write_text(state)
    assert kept(run) == [1]
    assert "damaged, passed over" in capsys.readouterr().err


def test_going_on_removes_what_a_kill_left(run: Run) -> None:
    save(run, 1)
    save(run, 2)
    (run.folder / "checkpoints/00000002/state.json").write_text("{")
    (run.folder / "checkpoints/.00000003.abc").mkdir()
    (run.folder / "checkpoints/.00000001.removed").mkdir()
    (run.folder / ".run.json.abc").write_text("{")
    (run.folder / ".mine").write_text("the user's own")
    run.tidy(1)
    assert names(run) == ["00000001"]
    assert (run.folder / ".mine").exists()
    assert not (run.folder / ".run.json.abc").exists()


def test_checkpoint_of_another_network_is_refused(run: Run) -> None:
    save(run, 1)
    path = run.folder / "checkpoints/00000001/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "identity": "another"}))
    with pytest.raises(NmtError, match="belongs to another run"):
        run.checkpoints()


def test_a_run_from_before_a_key_is_still_itself(run: Run) -> None:
    network = run.config.model.model_dump(mode="json")
    assert network.pop("attention_query") == "state"
    assert network.pop("source_bridge") is False
    assert network.pop("layer_norm") is False
    before = json.dumps([run.info["tokenizers"], network], sort_keys=True)
    assert run.identity == hashlib.sha256(before.encode()).hexdigest()


def test_two_trainings_in_one_folder_are_refused(run: Run) -> None:
    with (
        run.locked(),
        pytest.raises(NmtError, match="another nmt train is at work in it"),
        Run.open(run.folder).locked(),
    ):
        pass
    with run.locked():
        pass  # free again


def test_newest_run_is_the_one_that_finished_last(run: Run, config_path: Path) -> None:
    parent = run.folder.parent
    with pytest.raises(NmtError, match="no finished run in it"):
        newest_run(parent)
    run.mark_finished()
    other = load_config(config_path, [f"run={parent / 'other'}"])
    Run.create(other).mark_finished()
    Run.create(other.model_copy(update={"run": parent / "unfinished"}))
    assert newest_run(parent) == parent / "other"


def test_a_best_checkpoint_that_goes_while_it_is_read_gives_way(
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
    update, model = run.load_best(CPU)
    assert update == 2
    assert all(bool((p == 2.0).all()) for p in model.parameters())
