"""``nmt train`` through the command line: what it makes, and what it refuses."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from nmt.config.schema import TrainConfig
from nmt.data.manifest import FORMAT
from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.train.resume import SAFE_KEYS
from nmt.viz import plots
from tests.helpers.command import Result, nmt
from tests.helpers.toy import accept_changes, write_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished training: its configuration and what the command said."""
    config = write_config(tmp_path_factory.mktemp("trained"))
    assert nmt("prepare", "--config", config).code == 0
    return config, nmt("train", "--config", config, "--device", "cpu")


@pytest.fixture
def run(trained: tuple[Path, Result], tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(trained[0].parent / "run", tmp_path / "run")


def fails(result: Result, *lines: str) -> None:
    """Exit code 2, and these the last lines on stderr; nothing on stdout."""
    assert result.code == 2, result.err
    assert result.out == ""
    assert result.err.splitlines()[-len(lines) :] == list(lines)


def test_training_ends_with_0_and_says_why(trained: tuple[Path, Result]) -> None:
    result = trained[1]
    assert result.code == 0, result.err
    assert result.out == ""
    assert "finished: 2 epochs are done; best dev BLEU" in result.err


def test_training_says_how_the_recurrence_is_computed(trained: tuple[Path, Result]) -> None:
    said = "recurrence: PyTorch kernels (the device is cpu)"
    assert said in trained[1].err.splitlines()


def test_run_holds_all_that_translation_needs(trained: tuple[Path, Result]) -> None:
    run = trained[0].parent / "run"
    names = {
        "run.json", "config.yaml", "src.model", "trg.model", "manifest.json", "train.jsonl",
        "dev.src.txt", "dev.trg.txt", "test.src.txt", "test.trg.txt", "checkpoints",
    }  # fmt: skip
    assert names <= {path.name for path in run.iterdir()}
    assert Run.open(run).info.finished is not None
    assert not list(run.rglob("*.pt")) + list(run.rglob("*.pkl"))


def test_first_loss_is_near_the_logarithm_of_the_vocabulary(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"max_updates": 1, "warmup": 100})
    nmt("prepare", "--config", config)
    assert nmt("train", "--config", config, "--device", "cpu").code == 0
    run = Run.open(tmp_path / "run")
    logged = [r for r in read_journal(run.folder) if r["kind"] == "log"]
    assert logged[0]["loss"] == pytest.approx(math.log(len(run.trg)), rel=0.05)


def test_journal_tells_the_whole_training(trained: tuple[Path, Result]) -> None:
    records = read_journal(trained[0].parent / "run")
    assert records[0]["kind"] == "start"
    assert records[0]["torch"] == torch.__version__
    validations = [r for r in records if r["kind"] == "validation"]
    assert [r["epoch"] for r in validations] == [1.0, 2.0]
    for record in validations:
        assert 0 <= record["dev_bleu"] <= 100
        assert 0 <= record["dev_chrf"] <= 100
        assert record["signature"].startswith("nrefs:1|")
    sources = [[s["source"] for s in r["samples"]] for r in validations]
    assert sources[0] == sources[1]
    assert len(sources[0]) == 2


def test_finished_training_is_not_done_again(trained: tuple[Path, Result]) -> None:
    files = {path: path.stat().st_mtime_ns for path in (trained[0].parent / "run").rglob("*")}
    result = nmt("train", "--config", trained[0], "--device", "cpu")
    assert result.code == 0
    assert "training is finished (2 epochs are done)" in result.err
    assert files == {p: p.stat().st_mtime_ns for p in (trained[0].parent / "run").rglob("*")}


def test_auto_says_which_device_it_chose(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"max_updates": 1})
    nmt("prepare", "--config", config)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"device: {expected} (" in nmt("train", "--config", config).err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused(trained: tuple[Path, Result]) -> None:
    fails(
        nmt("train", "--config", trained[0], "--device", "cuda"),
        f"error: --device cuda: PyTorch {torch.__version__} finds no GPU",
        "hint: use --device cpu, or install a PyTorch build for your GPU",
    )


def test_unknown_device_is_refused(trained: tuple[Path, Result]) -> None:
    fails(
        nmt("train", "--config", trained[0], "--device", "tpu"),
        "error: --device tpu: unknown device",
        "hint: one of: auto, cpu, cuda, cuda:N",
    )


def test_no_prepared_corpus_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    fails(
        nmt("train", "--config", config, "--device", "cpu"),
        f"error: {tmp_path / 'corpus'}: no prepared corpus here",
        "hint: run nmt prepare with the same --config first",
    )
    assert not (tmp_path / "run").exists()


def test_another_folder_in_the_way_is_left_alone(trained: tuple[Path, Result]) -> None:
    folder = trained[0].parent / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("meow")
    fails(
        nmt("train", "--config", trained[0], "--device", "cpu", "--set", f"run={folder}"),
        f"error: {folder}: exists and is not a run directory",
        "hint: name another folder in run, or move this one away",
    )
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_a_file_in_the_way_is_left_alone(trained: tuple[Path, Result], tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    fails(
        nmt("train", "--config", trained[0], "--device", "cpu", "--set", f"run={tmp_path}/notes"),
        f"error: {tmp_path}/notes: is a file, run names a folder",
        "hint: name another one in run",
    )
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_link_to_an_empty_folder_is_a_place_for_a_run(
    trained: tuple[Path, Result], tmp_path: Path
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "run").symlink_to("large")
    keys = ("--set", f"run={tmp_path}/run", "--set", "train.max_updates=1")
    result = nmt("train", "--config", trained[0], "--device", "cpu", *keys)
    assert result.code == 0, result.err
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "large" / "run.json").exists()


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("data.to_simplified=false", "data.to_simplified=True, the configuration says False"),
        ("data.clean.max_pieces=50", "data.clean.max_pieces=100, the configuration says 50"),
    ],
)
def test_text_is_treated_as_it_was_prepared(
    trained: tuple[Path, Result], change: str, shown: str
) -> None:
    before = (trained[0].parent / "run" / "config.yaml").read_bytes()
    more = ("--set", change, "--set", "train.epochs=9")
    fails(
        nmt("train", "--config", trained[0], "--device", "cpu", *more),
        f"error: {trained[0].parent / 'corpus'}: was prepared with {shown}",
        "hint: run nmt prepare with the same --config and --set, or put the key back",
    )
    assert (trained[0].parent / "run" / "config.yaml").read_bytes() == before


def test_a_training_at_work_keeps_its_configuration(trained: tuple[Path, Result]) -> None:
    run = Run.open(trained[0].parent / "run")
    before = (run.folder / "config.yaml").read_bytes()
    with run.locked():
        fails(
            nmt("train", "--config", trained[0], "--device", "cpu", "--set", "search.beam=1"),
            f"error: {run.folder}: locked by another nmt train",
            "hint: wait until it ends, or name another folder in run",
        )
    assert (run.folder / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("betas", ["[0.9, 1.5]", "[-0.1, 0.9]"])
def test_betas_out_of_range_are_refused(trained: tuple[Path, Result], betas: str) -> None:
    result = nmt("train", "--config", trained[0], "--set", f"train.adam_betas={betas}")
    assert result.code == 2
    assert "train.adam_betas" in result.err


def test_keys_that_differ_are_refused_by_name(trained: tuple[Path, Result]) -> None:
    changes = ("train.learning_rate=1e-3", "model.dropout=0.5", "train.epochs=9")
    sets = [word for change in changes for word in ("--set", change)]
    fails(
        nmt("train", "--config", trained[0], "--device", "cpu", *sets),
        f"error: {trained[0].parent / 'run'}: was started with another configuration: "
        "model.dropout was 0.1, is 0.5; train.learning_rate was 0.005, is 0.001",
        "hint: name another folder in run for a new training, or put the keys back",
    )


def test_another_corpus_is_refused(trained: tuple[Path, Result], tmp_path: Path) -> None:
    run = trained[0].parent / "run"
    config = write_config(tmp_path, data={"dev": 20})
    nmt("prepare", "--config", config)
    fails(
        nmt("train", "--config", config, "--device", "cpu", "--set", f"run={run}"),
        f"error: {run}: was started on another corpus than {tmp_path / 'corpus'} holds now",
        f"hint: name another folder in run, or remove {run} to start again",
    )


def test_run_without_run_json_is_incomplete(run: Path) -> None:
    (run / "run.json").unlink()
    fails(
        nmt("translate", "--device", "cpu", "--model", run, "书"),
        f"error: {run}: not a run directory, or incomplete: run.json is missing",
    )


def test_run_that_is_not_there(tmp_path: Path) -> None:
    fails(
        nmt("translate", "--device", "cpu", "--model", tmp_path / "none", "书"),
        f"error: {tmp_path / 'none'}: no such run directory",
        "hint: nmt train makes one; see runs/",
    )


def test_run_of_a_newer_format_is_refused(run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "format": 99}))
    fails(
        nmt("translate", "--device", "cpu", "--model", run, "书"),
        f"error: {run / 'run.json'}: format 99, this program reads up to 1",
        "hint: it was made by a newer nmt: git pull in its clone, and install it again",
    )


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"format": null}'])
def test_damaged_run_json_is_refused(run: Path, damage: str) -> None:
    (run / "run.json").write_text(damage)
    result = nmt("translate", "--device", "cpu", "--model", run, "书")
    assert result.code == 2
    assert f"error: {run / 'run.json'}: damaged (" in result.err


def test_run_without_its_configuration_is_refused(run: Path) -> None:
    (run / "config.yaml").unlink()
    result = nmt("translate", "--device", "cpu", "--model", run, "书")
    assert result.code == 2
    assert f"error: {run / 'config.yaml'}: missing or damaged (" in result.err


def test_tokenizer_of_another_run_is_refused(run: Path) -> None:
    shutil.copyfile(run / "trg.model", run / "src.model")
    fails(
        nmt("translate", "--device", "cpu", "--model", run, "书"),
        f"error: {run / 'src'}.model: damaged: its checksum differs from the one recorded; not the "
        f"tokenizer this run was trained with",
        "hint: put the original file back: weights and tokenizers belong together",
    )


def test_checkpoint_of_another_network_is_refused(run: Path) -> None:
    tree = yaml.safe_load((run / "config.yaml").read_text())
    tree["model"]["decoder_hidden"] = 48
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    accept_changes(run)
    result = nmt("translate", "--device", "cpu", "--model", run, "书")
    assert result.code == 2
    assert "belongs to another run (other tokenizers or network)" in result.err


def test_run_without_a_checkpoint_cannot_translate(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    fails(
        nmt("translate", "--device", "cpu", "--model", run, "书"),
        f"error: {run}: no checkpoint yet",
        "hint: let nmt train run until its first save",
    )


def test_damaged_weights_are_never_translated_with(run: Path) -> None:
    for path in run.glob("checkpoints/*/model.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    result = nmt("translate", "--device", "cpu", "--model", run, "书")
    assert result.code == 2
    assert "damaged: its checksum differs from the one recorded" in result.err
    assert result.out == ""


def command(config: Path) -> list[str]:
    return [sys.executable, "-m", "nmt", "train", "--config", str(config), "--device", "cpu"]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a training; one that a failed test leaves behind is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(config: Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(command(config), stderr=stderr, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for_validations(process: subprocess.Popen[str], journal: Path, count: int) -> None:
    waited = time.monotonic()
    while not journal.exists() or journal.read_text().count('"validation"') < count:
        assert process.poll() is None
        assert time.monotonic() - waited < 120
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_ends_with_130(
    tmp_path: Path, number: signal.Signals, start: Callable[..., subprocess.Popen[str]]
) -> None:
    config = write_config(tmp_path, train={"epochs": 10_000, "patience": 10_000})
    nmt("prepare", "--config", config)
    process = start(config)
    wait_for_validations(process, tmp_path / "run" / "train.jsonl", 1)
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "stopping: saving first (Ctrl-C again to stop without)" in errors
    run = Run.open(tmp_path / "run")
    saved = run.checkpoints.all()[-1]
    assert f"saved at update {saved.update:,}; the same command resumes from there" in errors
    assert run.checkpoints.last_good() is not None
    assert run.info.finished is None


def test_log_that_nobody_reads_any_more_ends_no_training(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    config = write_config(tmp_path, train={"epochs": 6})
    nmt("prepare", "--config", config)
    process = start(config)
    assert process.stderr is not None
    process.stderr.readline()
    process.stderr.close()  # as in: nmt train 2>&1 | head -1
    process.wait(timeout=120)
    run = Run.open(tmp_path / "run")
    assert run.info.finished is not None
    assert len([r for r in read_journal(run.folder) if r["kind"] == "validation"]) == 6


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal to take away")
def test_terminal_that_is_closed_saves(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    config = write_config(tmp_path, train={"epochs": 10_000, "patience": 10_000})
    nmt("prepare", "--config", config)
    ours, theirs = os.openpty()
    process = start(config, theirs)
    os.close(theirs)
    # The terminal buffers one page; a thread reads it.
    reader = threading.Thread(target=drain, args=(ours,), daemon=True)
    reader.start()
    wait_for_validations(process, tmp_path / "run" / "train.jsonl", 1)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 130
    run = Run.open(tmp_path / "run")
    assert run.checkpoints.all()[-1].update == read_journal(run.folder)[-1]["update"]
    assert run.info.finished is None
    reader.join(timeout=10)


def drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass


REACH = [
    "train.seed=2", "train.batch_tokens=100", "train.learning_rate=1e-3", "train.warmup=3",
    "train.schedule=constant", "train.decay_start=1", "train.adam_betas=[0.5, 0.9]",
    "train.weight_decay=0.5", "train.clip=0.01", "train.label_smoothing=0.3", "train.ema=0.9",
    "train.guided_alignment=0.5", "train.joined_pairs=1",
    "train.precision=bfloat16", "model.dropout=0.4", "model.word_dropout=0.3",
]  # fmt: skip


def four_updates(config: Path, run: Path, *changes: str) -> bytes:
    """The weights after four updates."""
    keys = (f"run={run}", "train.max_updates=4", "train.warmup=1", "train.precision=float32")
    words = [word for key in (*keys, *changes) for word in ("--set", key)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "is_installed", lambda: False)
        result = nmt("train", "--config", config, "--device", "cpu", *words)
    assert result.code == 0, result.err
    return (Run.open(run).checkpoints.all()[-1].folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain(trained: tuple[Path, Result]) -> bytes:
    return four_updates(trained[0], trained[0].parent / "plain")


@pytest.mark.parametrize("change", REACH)
def test_what_is_configured_reaches_the_training(
    trained: tuple[Path, Result], plain: bytes, tmp_path: Path, change: str
) -> None:
    assert four_updates(trained[0], tmp_path / "run", change) != plain
    assert (tmp_path / "run/aligner.safetensors").exists() == ("guided" in change)


def test_no_key_of_the_training_is_forgotten_here() -> None:
    elsewhere = {"train.schedule_by", "train.span_pairs", "train.start_from", "train.also_validate"}
    known = {key.partition("=")[0] for key in REACH} | SAFE_KEYS | elsewhere
    assert {f"train.{name}" for name in TrainConfig.model_fields} <= known


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"format": 1}', f"corpus format 1, this program reads {FORMAT}"), ("{", "damaged (")],
)
def test_a_corpus_of_another_program_is_refused(
    trained: tuple[Path, Result], tmp_path: Path, text: str, message: str
) -> None:
    corpus = shutil.copytree(trained[0].parent / "corpus", tmp_path / "corpus")
    (corpus / "manifest.json").write_text(text)
    keys = ("--set", f"data.dir={corpus}", "--set", f"run={tmp_path}/run")
    result = nmt("train", "--config", trained[0], "--device", "cpu", *keys)
    error, hint = result.err.splitlines()[-2:]
    assert (result.code, hint) == (2, "hint: run nmt prepare again")
    assert error.startswith(f"error: {corpus}/manifest.json: {message}")
    assert not (tmp_path / "run").exists()
