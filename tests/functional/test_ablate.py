"""scripts/ablate.py"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "ablate.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_base_and_changes_are_in_one_table(toy: Path) -> None:
    out = toy.parent / "out" / "table"
    arguments = (
        "--config", toy, "--set", "train.epochs=1", "--change",
        "model.dropout=0.4 train.guided_alignment=0.1", "--seeds", "1,2", "--output", out,
        "--device", "cpu",
    )  # fmt: skip
    done = run_script(*arguments)
    assert done.returncode == 0, done.stderr
    text = out.with_name("table.md").read_text()
    assert done.stdout == text
    lines = text.splitlines()
    assert lines[2].startswith("| base ")
    assert lines[3].startswith("| model.dropout=0.4 train.guided_alignment=0.1 ")
    assert all(line.endswith(" 2 |") for line in lines[2:4])
    assert "nrefs:1|case:mixed" in text
    trainings = json.loads(out.with_name("table.json").read_text())["trainings"]
    assert [training["seed"] for training in trainings] == [1, 2, 1, 2]
    assert all(0 < training["dev_loss"] < 20 for training in trainings)
    assert len({training["dev_loss"] for training in trainings}) == 4

    again = run_script(*arguments)
    assert again.stdout == text
    assert again.stderr.count("training is finished") == 4


def test_mistakes_are_reported_before_the_first_training(toy: Path) -> None:
    done = run_script("--config", toy, "--change", "model.dropuot=0", "--output", toy.parent / "x")
    assert done.returncode == 2
    assert "unknown key model.dropuot" in done.stderr
    assert not (toy.parent / "ablation").exists()
    done = run_script("--config", toy, "--seeds", "one", "--output", toy.parent / "x")
    assert done.stderr.startswith("error: --seeds one: expected numbers separated by commas")
    done = run_script("--config", toy, "--seeds", "1,1", "--output", toy.parent / "x")
    assert done.stderr.startswith("error: --seeds 1,1: a seed is repeated")
    done = run_script("--config", toy, "--output", ".")
    assert done.stderr.startswith("error: --output .: a file name is needed")
