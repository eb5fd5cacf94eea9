"""scripts/bench_gpu.py on a CPU, at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt.data.batches import make_batch
from nmt.errors import NmtError
from tests.helpers.command import nmt
from tests.helpers.toy import write_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from bench_gpu import SECTIONS, run_all, run_in_process, summary  # noqa: E402
from gpu.harness import Bench, Settings, attempt  # noqa: E402
from gpu.work import work_of  # noqa: E402

TINY = {"embedding_dim": 16, "encoder_hidden": 16, "decoder_hidden": 24, "attention_hidden": 20}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    config = write_config(tmp_path_factory.mktemp("bench"))
    assert nmt("prepare", "--config", config).code == 0
    return Settings(
        str(config.parent / "corpus"), device="cpu", sizes={"base": TINY, "other": TINY},
        pieces={"base": 20, "other": 20}, tokens=200, sweep=(100,), updates=2, passes=2, matmul=64,
        copy_mib=1, check_sizes=((3, 5, 2, 16, 32, 24),), train_updates=2,
    )  # fmt: skip


def failures(record: Any, path: str = "") -> list[str]:
    """Return the failed steps of a record."""
    if not isinstance(record, dict):
        return []
    failed = [f"{path}: {record[key]}" for key in ("error", "failure") if record.get(key)]
    if record.get("passed") is False or record.get("same_bits_again") is False:
        failed.append(path)
    return failed + [
        line for key, value in record.items() for line in failures(value, f"{path}/{key}")
    ]


def test_all_sections_pass(settings: Settings, tmp_path: Path) -> None:
    sections = [name for name in SECTIONS if name != "train"]
    run_all(settings, tmp_path / "gpu.json", 300, sections, separate=False)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert failures(record) == []
    assert record["checks"]["kernels"]["failed"] == []
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.slow
def test_the_train_section(settings: Settings, tmp_path: Path) -> None:
    record = run_all(settings, tmp_path / "gpu.json", 300, ["train"], separate=False)
    assert failures(record) == []
    assert record["train"]["resumed"] == {"same_bits": True, "files": 2}


def test_a_section_in_a_process(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "ceilings.json"
    run_in_process("ceilings", settings, path, 100)
    results = json.loads(path.read_text())
    assert results["ceilings"]["copy_bytes_per_second"] > 0
    assert results["tools"]["why_not_triton"] == "the device is cpu"


def test_a_section_over_its_time_limit_is_stopped(settings: Settings, tmp_path: Path) -> None:
    run_in_process("checks", settings, tmp_path / "checks.json", 0.1)
    results = json.loads((tmp_path / "checks.json").read_text())
    assert summary(results) == "FAILED: stopped after 0 s"


def test_a_failed_section_keeps_its_traceback(settings: Settings, tmp_path: Path) -> None:
    broken = replace(settings, corpus=str(tmp_path / "nowhere"))
    run_in_process("main", broken, tmp_path / "main.json", 100)
    assert "nowhere" in json.loads((tmp_path / "main.json").read_text())["error"]


def test_a_failed_step_does_not_stop_the_others() -> None:
    def fail() -> None:
        raise RuntimeError("out of luck")

    results = dict([*attempt("bad", fail), *attempt("good", lambda: 7)])
    assert results["good"] == 7
    assert "out of luck" in results["bad"]["error"]
    assert summary(results) == "failed: bad"


def test_sections_without_time_are_skipped(settings: Settings, tmp_path: Path) -> None:
    record = run_all(settings, tmp_path / "gpu.json", 5, ["main"], separate=False)
    assert record["main"] == {"skipped": "5 s left"}


def test_an_unknown_section_is_an_error(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NmtError, match=r"--only speed: no such section \(hint: one of: ceilings"):
        run_all(settings, tmp_path / "gpu.json", 5, ["speed"])


def test_work_follows_the_formula(settings: Settings) -> None:
    batch = make_batch(Bench(settings).corpus, np.array([0]))
    src, trg = batch.src.shape[1], batch.trg_tokens
    sizes = {"embedding_dim": 3, "encoder_hidden": 5, "decoder_hidden": 7, "attention_hidden": 11}
    work = work_of(sizes, 13, 1000, batch)
    products = src * (2 * 3 * 5 * (3 + 5) + 10 * 11)
    products += trg * (3 * 7 * (3 + 10 + 7) + 7 * 11 + 3 * (7 + 10 + 3) + 13 * 3)
    products += src * trg * (11 + 10)
    assert work.flops == 6 * products
    assert (work + work).bytes == 2 * work.bytes


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_an_error(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench_gpu.py", "--corpus", settings.corpus],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: PyTorch {torch.__version__} finds no GPU\n")
    assert "scripts/gpu/kernel_checks.py --device cpu" in done.stderr
