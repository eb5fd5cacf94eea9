"""What goes wrong at night: no memory, no numbers, no disk, no time."""

import contextlib
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.run import checkpoints
from nmt.run.checkpoints import CheckpointStore
from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.train import gradient, loop, validation
from nmt.train.loss import Loss, batch_loss
from nmt.train.optimizer import Optimizer
from nmt.train.state import TrainState
from tests.helpers.command import nmt
from tests.helpers.toy import write_config
from tests.helpers.training import events, fingerprint, injected, newest, spoil_losses, train


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = write_config(tmp_path_factory.mktemp("trouble"), model={"dropout": 0.0})
    assert nmt("prepare", "--config", config).code == 0
    return config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_bad_batch_is_left_out_and_counted(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    spoil_losses(monkeypatch, {6}, value)
    result = train(prepared, tmp_path / "run")
    assert result.code == 0, result.err
    message = "update 6: the gradient is not finite; batch skipped"
    assert f"warning: {message}" in result.err
    assert events(tmp_path / "run") == [message]
    state = Run.open(tmp_path / "run").checkpoints.all()[-1].state.training
    assert (state["skipped"], state["rollbacks"], state["rate_scale"]) == (1, 0, 1.0)
    assert state["update"] == 49  # 50 batches
    assert_finite(tmp_path / "run")


def assert_finite(run: Path) -> None:
    for path in run.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())


def test_five_bad_batches_go_back_with_a_lower_rate(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_losses(
        monkeypatch, set(range(31, 36)), float("nan")
    )  # after the first epoch's validation
    result = train(prepared, tmp_path / "run")
    assert result.code == 0, result.err
    reason = "no finite gradient in 5 consecutive batches"
    assert f"{reason}: rolled back to update 25, learning rate times 0.5" in result.err
    state = Run.open(tmp_path / "run").checkpoints.all()[-1].state.training
    assert (state["skipped"], state["rollbacks"], state["rate_scale"]) == (5, 1, 0.5)
    assert state["update"] == 50
    assert_finite(tmp_path / "run")
    validations = [r["update"] for r in read_journal(tmp_path / "run") if r["kind"] == "validation"]
    assert validations == [25, 50]


def test_only_bad_batches_stop_with_an_explanation(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil_losses(patch, set(range(31, 10_000)), float("nan"))
        result = train(prepared, tmp_path / "run")
    assert result.code == 2
    assert result.err.splitlines()[-2:] == [
        "error: update 26: no finite gradient in 5 consecutive batches, also after 3 rollbacks and "
        "with the learning rate reduced to 0.125 of its configured value; the last checkpoint is "
        "intact",
        "hint: start a new run with a lower rate: --set train.learning_rate=0.0006",
    ]
    assert_finite(tmp_path / "run")
    # The checkpoint is intact: training resumes from it.
    assert train(prepared, tmp_path / "run").code == 0


def no_memory(
    monkeypatch: pytest.MonkeyPatch, most_rows: int, error: Exception
) -> list[tuple[int, bool]]:
    """Let batches of more rows fail as a device without memory would; returns all tried."""
    tried: list[tuple[int, bool]] = []

    def small(model: Seq2Seq, batch: Batch, *weights: float) -> Loss:
        fits = len(batch.src) <= most_rows
        tried.append((len(batch.src), fits))
        loss = batch_loss(model, batch, *weights)
        if not fits:
            # In the middle of a backward pass: some gradients are there already.
            loss.smoothed.backward(retain_graph=True)
            raise error
        return loss

    monkeypatch.setattr(gradient, "batch_loss", small)
    return tried


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "python"])
def test_batch_that_does_not_fit_is_split(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # In bfloat16 other parts are rounded otherwise, and Adam makes steps of any difference.
    keys = ["train.max_updates=8", "model.word_dropout=0", "train.precision=float32"]
    assert train(prepared, tmp_path / "whole", *keys).code == 0
    with monkeypatch.context() as patch:
        tried = no_memory(patch, 5, error)
        result = train(prepared, tmp_path / "parts", *keys)
    assert result.code == 0, result.err
    assert "does not fit into memory: batches of this size are computed in parts" in result.err
    assert max(rows for rows, _ in tried) > 5
    assert sum(not fits for _, fits in tried) <= 3  # learned, not tried again every time
    whole, parts = (
        load_file(Run.open(tmp_path / name).checkpoints.all()[-1].folder / "model.safetensors")
        for name in ("whole", "parts")
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-3, atol=1e-5)


def test_single_sentence_that_does_not_fit_is_said(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, 0, OUT_OF_MEMORY[0])
    result = train(prepared, tmp_path / "run")
    assert result.code == 2
    assert "error: out of memory for a single sentence pair of " in result.err
    assert "hint: lower data.clean.max_pieces" in result.err


def test_other_errors_keep_their_traceback(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_memory(monkeypatch, 0, RuntimeError("a bug of ours"))
    with pytest.raises(RuntimeError, match="a bug of ours"):
        train(prepared, tmp_path / "run")


def test_disk_full_for_a_while_costs_nothing_but_those_checkpoints(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(prepared, tmp_path / "undisturbed").code == 0
    calls = [0]

    def sometimes_full(tensors: Any, path: Path) -> None:
        calls[0] += 1
        if 3 <= calls[0] <= 6:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path)

    real = checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", sometimes_full)
    with injected(save_due=lambda state: state.update % 9 == 0):
        result = train(prepared, tmp_path / "run")
    assert result.code == 0, result.err
    lost = [e for e in events(tmp_path / "run") if "is not saved, training continues" in e]
    assert len(lost) == 4
    assert "the disk is full; nothing was left half-written" in lost[0]
    last = "checkpoints/00000050/"
    a, b = fingerprint(tmp_path / "run"), fingerprint(tmp_path / "undisturbed")
    assert a[f"{last}model.safetensors"] == b[f"{last}model.safetensors"]
    assert a[f"{last}trainer.safetensors"] == b[f"{last}trainer.safetensors"]


def test_disk_full_at_the_end_is_an_error_and_the_last_good_files_stay(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = checkpoints.save_file, [0]

    def full_later(tensors: Any, path: Path) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full_later)
    result = train(prepared, tmp_path / "run")
    assert result.code == 2
    folder = tmp_path / "run" / "checkpoints" / "00000050"
    assert result.err.splitlines()[-2:] == [
        f"error: {folder}: the disk is full; nothing was left half-written",
        "hint: free some space and run the same command again",
    ]
    last_good = Run.open(tmp_path / "run").checkpoints.last_good()
    assert last_good is not None
    assert last_good[0].update == 25
    monkeypatch.undo()
    assert train(prepared, tmp_path / "run").code == 0
    assert train(prepared, tmp_path / "undisturbed").code == 0
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "undisturbed")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounting a small disk needs root",
)
def test_real_small_disk_that_fills_up(prepared: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        run = disk / "run"
        assert train(prepared, run, "train.epochs=1", "train.schedule=constant").code == 0
        before = fingerprint(run)
        fill(disk / "filler")
        result = train(prepared, run, "train.epochs=2", "train.schedule=constant")
        assert result.code == 2
        assert "the disk is full; nothing was left half-written" in result.err
        assert before.items() <= fingerprint(run).items()
        (disk / "filler").unlink()
        again = train(prepared, run, "train.epochs=2", "train.schedule=constant")
        assert again.code == 0, again.err
        whole = train(prepared, tmp_path / "whole", "train.epochs=2", "train.schedule=constant")
        assert whole.code == 0
        assert newest(fingerprint(run)) == newest(fingerprint(tmp_path / "whole"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    """Leave no block free on the disk of `path`."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def test_minutes_end_with_a_validation_and_a_save_inside_them(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]  # seconds: 8 an update, and a validation takes 15

    def ticking(owner: Any, name: str, seconds: float) -> None:
        call = getattr(owner, name)

        def ticked(*args: Any, **keys: Any) -> Any:
            clock[0] += seconds
            return call(*args, **keys)

        monkeypatch.setattr(owner, name, ticked)

    monkeypatch.setattr(loop, "train", functools.partial(loop.train, clock=lambda: clock[0]))
    ticking(gradient.GradientComputer, "compute", 8.0)
    ticking(validation.Validation, "validate", 15.0)
    ticking(CheckpointStore, "save", 0.5)
    keys = ("train.max_minutes=5", "train.epochs=1000", "train.patience=1000")
    result = train(prepared, tmp_path / "run", *keys)
    assert result.code == 0, result.err
    assert "finished: 5 minutes are over" in result.err
    last = Run.open(tmp_path / "run").checkpoints.all()[-1]
    assert last.dev_bleu is not None
    assert 260 < last.state.training["seconds"] <= 300
    # The same time again leaves what there is.
    files = fingerprint(tmp_path / "run")
    clock[0] += 1000.0
    again = train(prepared, tmp_path / "run", *keys)
    assert "training is finished (5 minutes are over)" in again.err
    assert fingerprint(tmp_path / "run") == files
    # With a higher limit it resumes.
    more = ("train.max_minutes=6", *keys[1:])
    assert "6 minutes are over" in train(prepared, tmp_path / "run", *more).err


def test_training_ends_when_dev_bleu_has_not_risen_for_patience_validations(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bleu = iter([5.0, 4.0, 6.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])

    class Scored:
        name, value, signature = "BLEU", 0.0, "nrefs:1|made up"

    def scores(*_: object) -> list[Any]:
        bleu_score, chrf_score = Scored(), Scored()
        bleu_score.value, chrf_score.name = next(bleu), "chrF2"
        return [bleu_score, chrf_score]

    monkeypatch.setattr(validation, "score", scores)
    keys = ("train.validate_every=0.2", "train.patience=5")
    result = train(prepared, tmp_path / "run", *keys)
    assert result.code == 0, result.err
    assert "finished: dev BLEU has not risen in 5 validations; best dev BLEU 6.00" in result.err


def test_forecast_comes_before_the_first_update(prepared: Path, tmp_path: Path) -> None:
    result = train(prepared, tmp_path / "run", "train.max_updates=3")
    assert "forecast: " in result.err
    kinds = [record["kind"] for record in read_journal(tmp_path / "run")]
    assert kinds[:2] == ["start", "forecast"]
    forecast = read_journal(tmp_path / "run")[1]
    assert forecast["memory"] > 50 * 2**20  # PyTorch alone is more
    assert 0 < forecast["seconds_per_epoch"] < 60


def test_curves_are_drawn_at_validations(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert train(prepared, tmp_path / "run").code == 0
    svg = (tmp_path / "run" / "curves.svg").read_text(encoding="utf-8")
    for heading in ("training loss", "dev BLEU", "learning rate", "speed"):
        assert heading in svg


def test_curves_that_cannot_be_drawn_cost_nothing(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> bytes:
        raise RuntimeError("latex was not able to process")

    monkeypatch.setattr("nmt.train.curves.training_curves", broken)
    result = train(prepared, tmp_path / "run")
    assert result.code == 0
    assert "warning: curves are not drawn: latex was not able to process" in result.err


def test_time_that_is_over_before_the_first_update(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--config", prepared, "--device", "cpu", "--set", f"run={run}")
    result = nmt("train", *words, "--set", "train.max_minutes=0.0001")
    assert result.code == 2
    assert f"error: {run}: 0.0001 minutes are over before the first update" in result.err
    assert "hint: raise train.max_minutes and run the same command again" in result.err
    assert nmt("train", *words, "--set", "train.max_updates=2").code == 0


def test_tensorboard_gets_the_numbers_of_the_journal(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    words = ("--config", prepared, "--device", "cpu", "--set", f"run={run}", "--tensorboard")
    assert nmt("train", *words).code == 0
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"log/loss", "validation/dev_bleu"} <= set(events.Tags()["scalars"])
    loss = [r["loss"] for r in read_journal(run) if r["kind"] == "log"]
    assert [e.value for e in events.Scalars("log/loss")] == pytest.approx(loss)


def test_missing_tensorboard_is_refused_before_the_run_is_created(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    result = nmt(
        "train", "--config", prepared, "--device", "cpu", "--set", f"run={tmp_path / 'run'}",
        "--tensorboard",
    )  # fmt: skip
    assert result.code == 2
    assert result.err.splitlines()[-2:] == [
        "error: --tensorboard: the package tensorboard is not installed",
        "hint: pip install 'nmt-zh-en[tensorboard]'",
    ]
    assert not (tmp_path / "run").exists()


def test_it_saves_every_so_many_minutes(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saved = [0.0], []
    compute, save = gradient.GradientComputer.compute, CheckpointStore.save

    def computed(*args: Any, **keys: Any) -> Any:
        clock[0] += 8.0
        return compute(*args, **keys)

    def noted(self: CheckpointStore, training: dict[str, Any], *arguments: Any) -> Any:
        saved.append(training["update"])
        return save(self, training, *arguments)

    monkeypatch.setattr(loop, "train", functools.partial(loop.train, clock=lambda: clock[0]))
    monkeypatch.setattr(gradient.GradientComputer, "compute", computed)
    monkeypatch.setattr(CheckpointStore, "save", noted)
    result = train(prepared, tmp_path / "run", "train.epochs=1", "train.save_every=1")
    assert result.code == 0, result.err
    # The four computations of the forecast take 32 of the first 60 seconds.
    assert [update for update in saved if 0 < update < 25] == [5, 14, 23]


@pytest.mark.parametrize("change", ["renamed", "removed", "replaced"])
def test_training_fails_when_its_run_directory_disappears(
    prepared: Path, tmp_path: Path, change: str
) -> None:
    run = tmp_path / "run"

    def disturb(state: TrainState) -> bool:
        if state.update == 10:
            if change == "removed":
                shutil.rmtree(run)
            else:
                run.rename(tmp_path / "elsewhere")
            if change == "replaced":
                shutil.copytree(tmp_path / "elsewhere", run)
        return state.update == 12

    with injected(save_due=disturb):
        result = train(prepared, run)
    assert result.code == 2
    assert f"error: {run}: the run directory was moved or removed during training" in result.err
    assert "finished" not in result.err
    if change == "removed":
        assert not run.exists()


def test_run_directory_that_disappears_before_the_end_is_an_error(
    prepared: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def rename_at_the_end(state: TrainState) -> bool:
        if state.update == 8:
            run.rename(tmp_path / "elsewhere")
        return False

    with injected(save_due=rename_at_the_end):
        result = train(prepared, run, "train.max_updates=8")
    assert result.code == 2
    assert "moved or removed during training" in result.err


def test_weights_that_are_not_finite_are_rolled_back_and_never_saved(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, count = Optimizer.__call__, [0]

    def broken_once(self: Optimizer, rate: float, number: int) -> torch.Tensor:
        norm = step(self, rate, number)
        count[0] += 1
        if count[0] == 10:
            next(self.model.parameters()).data.view(-1)[0] = torch.inf
        return norm

    monkeypatch.setattr(Optimizer, "__call__", broken_once)
    with injected(save_due=lambda state: state.update % 9 == 0):
        result = train(prepared, tmp_path / "run", "train.max_updates=20")
    assert result.code == 0, result.err
    (event,) = events(tmp_path / "run")
    assert event.startswith("the weights are not finite: rolled back to update 1,")
    assert_finite(tmp_path / "run")


def test_weights_that_are_not_finite_at_the_end_are_an_error(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Optimizer, "weights_are_finite", lambda self: not self.adamw.state)
    result = train(prepared, tmp_path / "run", "train.max_updates=3")
    assert result.code == 2
    assert "the weights are not finite" in result.err


def test_without_a_terminal_a_line_is_logged_every_30_seconds(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    compute = gradient.GradientComputer.compute

    def computed(*args: Any, **keys: Any) -> Any:
        clock[0] += 8.0
        return compute(*args, **keys)

    monkeypatch.setattr(gradient.GradientComputer, "compute", computed)
    with injected(clock=lambda: clock[0]):
        result = train(prepared, tmp_path / "run", "train.max_updates=20")
    lines = re.findall(r"update (\d+), (\d+)% of the training", result.err)
    assert [int(update) for update, _ in lines] == [1, 5, 9, 13, 17]
    assert [int(share) for _, share in lines] == [5, 25, 45, 65, 85]


def test_progress_counts_minutes_when_they_end_the_training(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    compute = gradient.GradientComputer.compute

    def computed(*args: Any, **keys: Any) -> Any:
        clock[0] += 8.0
        return compute(*args, **keys)

    monkeypatch.setattr(gradient.GradientComputer, "compute", computed)
    keys = ("train.max_minutes=2", "train.epochs=1000")
    with injected(clock=lambda: clock[0]):
        result = train(prepared, tmp_path / "run", *keys)
    shares = [int(share) for share in re.findall(r"(\d+)% of the training", result.err)]
    assert shares == sorted(shares)
    assert shares[0] > 30  # 40 of 120 seconds, not 1 of 25,000 updates
