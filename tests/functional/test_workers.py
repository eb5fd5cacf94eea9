"""Two workers under torchrun: the same training as one, and one of them may die."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nmt.run.directory import Run
from nmt.run.journal import read_journal
from tests.helpers.command import nmt
from tests.helpers.toy import write_config

# Without dropout, which each worker draws for its own share.
STILL = {"dropout": 0.0, "word_dropout": 0.0}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc and gloo"),
]


def torchrun(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "--max-restarts=5", "-m", "nmt", "train", "--config", str(config), "--device", "cpu",
        *arguments,
    ]  # fmt: skip
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Run.open(run).checkpoints.all()[-1].folder / "model.safetensors")


def test_two_workers_equal_one_with_the_same_batches_to_rounding(tmp_path: Path) -> None:
    train = {"guided_alignment": 0.1, "precision": "float32"}
    config = write_config(tmp_path, model=STILL, train=train)
    assert nmt("prepare", "--config", config).code == 0
    alone = nmt("train", "--config", config, "--device", "cpu", "--set", f"run={tmp_path}/alone")
    assert alone.code == 0, alone.err
    workers = torchrun(config)
    errors = workers.communicate(timeout=300)[1]
    assert workers.returncode == 0, errors
    assert "2 workers" in errors
    assert errors.count("finished: 2 epochs are done") == 1  # logged by rank 0 only
    single, pair = newest(tmp_path / "alone"), newest(tmp_path / "run")
    for name, tensor in single.items():
        torch.testing.assert_close(pair[name], tensor, rtol=1e-2, atol=1e-4)
    records = [read_journal(tmp_path / name) for name in ("alone", "run")]
    losses = [[r["loss"] for r in journal if r["kind"] == "log"] for journal in records]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    tokens = [[r["tokens"] for r in journal if r["kind"] == "log"] for journal in records]
    assert tokens[0] == tokens[1]
    bleus = [[r["dev_bleu"] for r in journal if r["kind"] == "validation"] for journal in records]
    assert bleus[1] == pytest.approx(bleus[0], abs=1.0)


def test_one_worker_is_killed_and_the_job_recovers(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"epochs": 15, "patience": 1000, "save_every": 0.01})
    assert nmt("prepare", "--config", config).code == 0
    workers = torchrun(config)
    journal = tmp_path / "run" / "train.jsonl"
    waited = time.monotonic()
    while not journal.exists() or journal.read_text().count('"validation"') < 2:
        assert workers.poll() is None, workers.communicate()[1]
        assert time.monotonic() - waited < 120
        time.sleep(0.05)
    os.kill(worker_pid(workers.pid), signal.SIGKILL)
    errors = workers.communicate(timeout=300)[1]
    assert workers.returncode == 0, errors
    assert "resuming at update" in errors
    assert "finished: 15 epochs are done" in errors
    starts = [r for r in read_journal(tmp_path / "run") if r["kind"] == "start"]
    assert len(starts) == 2
    assert starts[1]["update"] > 0
    run = Run.open(tmp_path / "run")
    assert run.info.finished is not None
    assert json.loads((run.folder / "run.json").read_text())["format"] == 1


def worker_pid(parent: int) -> int:
    """A child of torchrun that is not the first worker."""
    pids = [
        int(pid)
        for children in Path(f"/proc/{parent}/task").glob("*/children")
        for pid in children.read_text().split()
    ]
    for pid in pids:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in environment:
            return pid
    raise AssertionError(f"no worker 1 among {pids}")


def test_a_signal_to_torchrun_saves(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"epochs": 10_000, "patience": 10_000})
    assert nmt("prepare", "--config", config).code == 0
    workers = torchrun(config)
    journal = tmp_path / "run" / "train.jsonl"
    waited = time.monotonic()
    while not journal.exists() or journal.read_text().count('"validation"') < 1:
        assert workers.poll() is None, workers.communicate()[1]
        assert time.monotonic() - waited < 120
        time.sleep(0.05)
    workers.send_signal(signal.SIGTERM)
    errors = workers.communicate(timeout=120)[1]
    assert "saved at update" in errors
    assert Run.open(tmp_path / "run").checkpoints.last_good() is not None
