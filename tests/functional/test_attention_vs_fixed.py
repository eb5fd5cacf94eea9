"""scripts/attention_vs_fixed.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "attention_vs_fixed.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_both_recipes_differ_in_attention_only(toy: Path) -> None:
    pytest.importorskip("matplotlib")
    out = toy.parent / "out"
    done = run_script(
        "--config", toy, "--set", "train.epochs=1", "--output", out, "--device", "cpu",
        "--buckets", "5,7",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    configs = [
        yaml.safe_load((toy.parent / f"run-{kind}" / "config.yaml").read_text())
        for kind in ("additive", "none")
    ]
    assert [config["model"].pop("attention") for config in configs] == ["additive", "none"]
    assert [Path(config.pop("run")).name for config in configs] == ["run-additive", "run-none"]
    assert configs[0] == configs[1]
    table = (out / "by_length.md").read_text()
    assert done.stdout == table
    assert "| attention " in table
    assert "| one fixed vector " in table
    picture = (out / "by_length.svg").read_text()
    assert "one fixed vector" in picture


def test_a_mistake_is_reported_as_an_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run_script("--config", tmp_path / "none.yaml", "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'none.yaml'}: no such configuration file")
