"""The benchmark for a GPU, tried out without one: all that it does, at tiny sizes."""

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
from bench_gpu import SECTIONS, run_all, run_apart, summary  # noqa: E402
from gpu.bench import Bench, Settings, attempt  # noqa: E402
from gpu.work import counted, work_of  # noqa: E402

TINY = {"embedding_dim": 16, "encoder_hidden": 16, "decoder_hidden": 24, "attention_hidden": 20}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    config = write_config(tmp_path_factory.mktemp("bench"))
    assert nmt("prepare", "--config", config).code == 0
    return Settings(
        str(config.parent / "corpus"), device="cpu", sizes={"base": TINY, "other": TINY},
        pieces={"base": 20, "other": 20}, tokens=200, sweep=(100,), updates=2, passes=2, matmul=64,
        copy_mib=1, repeats=2, check_sizes=((3, 5, 2, 16, 32, 24),), train_updates=2,
    )  # fmt: skip


def failures(record: Any, path: str = "") -> list[str]:
    """Where in a record something went wrong."""
    if not isinstance(record, dict):
        return []
    found = [f"{path}: {record[key]}" for key in ("error", "failure") if record.get(key)]
    if record.get("passed") is False or record.get("same_bits_again") is False:
        found.append(path)
    return found + [
        line for key, value in record.items() for line in failures(value, f"{path}/{key}")
    ]


def test_every_section_but_the_program_itself(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = [name for name in SECTIONS if name != "train"]
    before = torch.are_deterministic_algorithms_enabled()
    run_all(settings, tmp_path / "gpu.json", 300, sections, apart=False)
    assert torch.are_deterministic_algorithms_enabled() == before
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert failures(record) == []
    assert record["checks"]["kernels"]["failed"] == []
    assert record["checks"]["kernels"]["compared"] == 96
    assert len(record["update"]) == 8
    main = record["main"]["base, 200 tokens"]
    assert main["floor"]["tokens_per_second_if_one_after_the_other"] > 0
    assert list(record["main"]["phases"]) == [
        "encoder, embeddings, keys", "recurrence, forward",
        "readout, output layer and loss (with its own gradient)", "readout, backward",
        "recurrence, backward", "encoder, embeddings, keys, backward", "clipping and optimizer",
    ]  # fmt: skip
    assert len(record["kernels"]) == 2 * 7 + 1
    assert record["translate"]["translate"] == {"skipped": "no --run"}
    assert str(tmp_path) not in json.dumps(record)
    assert capsys.readouterr().out.count("\n") == len(sections)


@pytest.mark.slow
def test_the_program_itself(settings: Settings, tmp_path: Path) -> None:
    record = run_all(settings, tmp_path / "gpu.json", 300, ["train"], apart=False)
    assert failures(record) == []
    assert record["train"]["stopped and gone on"] == {"same_bits": True, "files": 2}
    assert record["train"]["undisturbed"]["said"][-1].startswith("recurrence: PyTorch kernels")


def test_a_section_in_its_own_process(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "ceilings.json"
    run_apart("ceilings", settings, path, 100)
    found = json.loads(path.read_text())
    assert found["ceilings"]["copy_bytes_per_second"] > 0
    assert found["tools"]["why_not_triton"] == "the device is cpu"


def test_a_section_that_takes_too_long_is_stopped(settings: Settings, tmp_path: Path) -> None:
    run_apart("checks", settings, tmp_path / "checks.json", 0.1)
    found = json.loads((tmp_path / "checks.json").read_text())
    assert found["error"].startswith("stopped after 0 s")
    assert summary(found) == "FAILED: stopped after 0 s"


def test_a_section_that_dies_says_so(settings: Settings, tmp_path: Path) -> None:
    broken = replace(settings, corpus=str(tmp_path / "nowhere"))
    run_apart("main", broken, tmp_path / "main.json", 100)
    assert "nowhere" in json.loads((tmp_path / "main.json").read_text())["error"]


def test_a_variant_that_fails_leaves_the_others() -> None:
    def fails() -> None:
        raise RuntimeError("out of luck")

    found = dict([*attempt("bad", fails), *attempt("good", lambda: 7)])
    assert found["good"] == 7
    assert "out of luck" in found["bad"]["error"]
    assert summary(found) == "failed: bad"


def test_what_there_is_no_time_for_is_skipped(settings: Settings, tmp_path: Path) -> None:
    record = run_all(settings, tmp_path / "gpu.json", 5, ["main"], apart=False)
    assert record["main"] == {"skipped": "5 s were left"}


def test_an_unknown_section_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NmtError, match=r"--only speed: no such section \(hint: one of: ceilings"):
        run_all(settings, tmp_path / "gpu.json", 5, ["speed"])


def test_work_is_counted_by_the_formula(settings: Settings) -> None:
    bench = Bench(settings)
    one = make_batch(bench.corpus, np.array([0]))
    src, trg = one.src.shape[1], one.trg_tokens
    work = work_of(
        {"embedding_dim": 3, "encoder_hidden": 5, "decoder_hidden": 7, "attention_hidden": 11},
        13,
        1000,
        one,
    )
    products = src * (2 * 3 * 5 * (3 + 5) + 10 * 11)
    products += trg * (3 * 7 * (3 + 10 + 7) + 7 * 11 + 3 * (7 + 10 + 3) + 13 * 3)
    products += src * trg * (11 + 10)
    assert work.flops == 6 * products
    assert work.logits_bytes == trg * 13 * 2 * 4
    assert work.tanhs == 3 * src * trg * 11
    assert (work + work).bytes == 2 * work.bytes


def test_the_floor_is_counted_without_a_device(settings: Settings) -> None:
    work, real, shares = counted(Bench(settings), "base", 200, 2)
    assert shares["parameters"] == sum(
        p.numel() for p in Bench(settings).model("base").parameters()
    )
    assert shares["mflop_per_target_token"] == pytest.approx(work.flops / real / 1e6)
    assert sum(shares["bytes_per_target_token"].values()) == pytest.approx(work.bytes / real)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_refused(settings: Settings) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench.py", "gpu", "--corpus", settings.corpus],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: bench.py gpu: PyTorch {torch.__version__} sees no GPU\n"
        "hint: the kernels alone, without one: "
        "TRITON_INTERPRET=1 python scripts/gpu/kernel_checks.py --device cpu\n"
    )
