"""Fine-tuning: tokenizers and weights of another model, further dev sets."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from nmt.config.load import load_config
from nmt.run.directory import Run
from nmt.run.journal import read_journal
from nmt.viz.plots import training_curves
from tests.helpers.command import ROOT, assert_refused, nmt
from tests.helpers.toy import write_config


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run with an aligner."""
    config = write_config(tmp_path_factory.mktemp("old"), train={"guided_alignment": 0.1})
    assert nmt("prepare", "--config", config).code == 0
    result = nmt("train", "--config", config, "--device", "cpu")
    assert result.code == 0, result.err
    return config.parent / "run"


def adapted_config(folder: Path, old: Path, **train: object) -> Path:
    """Write a configuration that starts from `old` and leaves the model section out."""
    keys = {"start_from": str(old), "also_validate": [str(old)], "ema": "auto", **train}
    config = write_config(folder, data={"tokenizers": str(old)}, train=keys)
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    del tree["model"], tree["data"]["src_vocab"], tree["data"]["trg_vocab"]
    config.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def config(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that starts from `old`, with its prepared corpus."""
    path = adapted_config(tmp_path_factory.mktemp("new"), old, guided_alignment=0.1)
    result = nmt("prepare", "--config", path)
    assert result.code == 0, result.err
    assert f"tokenizers: those of {old}" in result.err
    return path


@pytest.fixture(scope="module")
def adapted(config: Path) -> Path:
    """The run of `config`."""
    result = nmt("train", "--config", config, "--device", "cpu")
    assert result.code == 0, result.err
    assert "train.ema 0.99" in result.err
    return config.parent / "run"


def weights(run: Path) -> dict[int, bytes]:
    return {
        checkpoint.update: (checkpoint.folder / "model.safetensors").read_bytes()
        for checkpoint in Run.open(run).checkpoints.all()
    }


def test_tokenizers_are_those_of_the_other_model(old: Path, config: Path) -> None:
    for side in ("src", "trg"):
        name = f"{side}.model"
        assert (config.parent / "corpus" / name).read_bytes() == (old / name).read_bytes()
    assert "unchanged, nothing to do" in nmt("prepare", "--config", config).err


def test_new_run_starts_from_the_weights(old: Path, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = nmt(
        "train", "--config", config, "--device", "cpu", "--set", f"run={run}",
        "--set", "train.learning_rate=1e-30", "--set", "train.max_updates=1",
    )  # fmt: skip
    assert result.code == 0, result.err
    trained = load_file(Run.open(run).checkpoints.best().folder / "model.safetensors")
    start = Run.open(old).weights()
    assert all((trained[name] - start[name]).abs().max() < 1e-6 for name in start)


def test_left_out_model_section_follows_the_start_model(old: Path, adapted: Path) -> None:
    before, after = Run.open(old).config.model, Run.open(adapted).config.model
    assert after.model_copy(update={"dropout": before.dropout}) == before
    assert after.dropout == 0.2


def test_old_dev_set_is_scored_in_journal_log_and_curves(old: Path, adapted: Path) -> None:
    records = read_journal(adapted)
    validations = [record for record in records if record["kind"] == "validation"]
    assert validations
    for record in validations:
        assert record["also"].keys() == {str(old)}
        assert 0 <= record["also"][str(old)]["bleu"] <= 100
    pytest.importorskip("matplotlib")
    with_further = training_curves(records)
    for record in validations:
        del record["also"]
    assert len(with_further or b"") > len(training_curves(records) or b"")


def test_package_and_run_give_the_same_training(
    old: Path, config: Path, adapted: Path, tmp_path: Path
) -> None:
    package = tmp_path / "old.nmt"
    arguments = ("--output", package, "--dtype", "float32", "--with-aligner")
    assert nmt("package", old, *arguments).code == 0
    run = tmp_path / "run"
    result = nmt(
        "train", "--config", config, "--device", "cpu", "--set", f"run={run}",
        "--set", f"train.start_from={package}",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert weights(run) == weights(adapted)


def test_killed_and_resumed_without_the_start_model_equals_no_kill(
    old: Path, config: Path, adapted: Path, tmp_path: Path
) -> None:
    moved, run = tmp_path / "old", tmp_path / "run"
    shutil.copytree(old, moved)
    command = [
        "train", "--config", config, "--device", "cpu", "--set", f"run={run}",
        "--set", f"train.start_from={moved}", "--set", f"train.also_validate=[{moved}]",
        "--set", "train.save_every=1e-9",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt", *map(str, command)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not list(run.glob("checkpoints/*[1-9]*/state.json")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert Run.open(run).info.finished is None
    shutil.rmtree(moved)
    result = nmt(*command)
    assert result.code == 0, result.err
    last = max(weights(adapted))
    assert weights(run)[last] == weights(adapted)[last]


def test_mixed_tokenizers_are_refused(old: Path, tmp_path: Path) -> None:
    config = adapted_config(tmp_path, old)
    sets = ["--set", "data.tokenizers=null", "--set", "data.src_vocab=340"]
    assert nmt("prepare", "--config", config, *sets).code == 0
    assert_refused(
        nmt("train", "--config", config, "--device", "cpu", *sets),
        f"its src tokenizer is not that of train.start_from, {old}",
        f"set data.tokenizers: {old} and run nmt prepare again",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.decoder_hidden=64", "model.decoder_hidden: 64 contradicts train.start_from"),
        ("model.layer_norm=true", "model.layer_norm: True contradicts train.start_from"),
        ("train.start_from=nowhere", "nowhere: no such run directory"),
        ("train.also_validate=[nowhere]", "train.also_validate: nowhere: no dev set"),
    ],
)
def test_contradictions_are_refused(
    config: Path, tmp_path: Path, override: str, message: str
) -> None:
    run = tmp_path / "run"
    sets = ["--set", override, "--set", f"run={run}"]
    assert_refused(nmt("train", "--config", config, "--device", "cpu", *sets), message)
    assert not run.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.src_vocab=400", "data.src_vocab: 400 contradicts data.tokenizers"),
        ("data.to_simplified=false", "data.to_simplified: False contradicts data.tokenizers"),
        ("data.tokenizers=nowhere", "nowhere: no such run directory"),
    ],
)
def test_tokenizers_that_do_not_fit_are_refused(config: Path, override: str, message: str) -> None:
    assert_refused(nmt("prepare", "--config", config, "--set", override), message)


def test_same_values_of_the_model_section_are_accepted(old: Path, config: Path) -> None:
    from nmt.data.manifest import load_manifest
    from nmt.train.start import follow_start

    model = Run.open(old).config.model
    loaded = load_config(config, [f"model.decoder_hidden={model.decoder_hidden}", "run=absent"])
    assert follow_start(loaded, load_manifest(loaded.data.dir)).model.layer_norm is False


def test_damaged_start_weights_are_refused(config: Path, adapted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(adapted, run)
    with (run / "start.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    result = nmt(
        "train", "--config", config, "--device", "cpu", "--set", f"run={run}",
        "--set", "train.epochs=3",
    )  # fmt: skip
    assert_refused(result, "start.safetensors: damaged")
