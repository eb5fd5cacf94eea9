"""Output files and folders: interrupted, out of place, or with unusual names."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.command import Result, nmt

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_translation_leaves_no_temporary_file(
    toy_run: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-m", "nmt", "translate", "--model", str(toy_run)]
    process = subprocess.Popen(
        [*command, "--output", "out", "--device", "cpu"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for _ in range(600):
        if list(tmp_path.iterdir()):
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert list(tmp_path.iterdir()) == []


def test_no_folder_is_created_for_an_output_file(toy_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "out"
    answer = nmt("translate", "--model", toy_run, "--output", path, "我")
    assert answer.code == 2
    assert f"error: {path}: the folder {path.parent} does not exist\nhint: mkdir -p" in answer.err
    assert not path.parent.exists()


def test_a_report_is_not_written_through_a_link_out_of_the_run(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    target = tmp_path / "precious.txt"
    target.write_text("precious", encoding="utf-8")
    (run / "evaluation").mkdir()
    link = run / "evaluation" / "hypotheses.txt"
    link.symlink_to(target)
    answer = nmt("evaluate", run, "--device", "cpu")
    assert answer.code == 2
    assert f"error: {link}: a symbolic link leads out of {run}, to {target}" in answer.err
    assert target.read_text(encoding="utf-8") == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_file_names_that_are_not_utf8(
    nmt_command: Callable[..., Result], toy_run: Path, tmp_path: Path
) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (tmp_path / f"zh{name}").write_text("我爱中国。\n", encoding="utf-8")
    (tmp_path / f"en{name}").write_text("I love China.\n", encoding="utf-8")
    options = ["--model", toy_run, "--device", "cpu"]

    def call(*arguments: object) -> Result:
        return nmt_command(*arguments, cwd=tmp_path)

    answer = call("translate", *options, "--input", f"zh{name}", "--output", f"out{name}")
    assert (answer.code, answer.out) == (0, ""), answer.err
    assert (tmp_path / f"out{name}").read_text(encoding="utf-8") == "I love China.\n"
    texts = ["--src", f"zh{name}", "--ref", f"en{name}", "--html", f"page{name}"]
    answer = call("evaluate", toy_run, *options[2:], *texts, "--markdown", f"report{name}")
    assert answer.code == 0, answer.err
    answer = call("evaluate", f"en{name}", "--ref", f"en{name}")
    assert answer.code == 0, answer.err
    answer = call("translate", "--model", f"absent{name}", "我")
    assert answer.code == 2
    assert answer.err.startswith("error: absent\\udcff\\udcfe: no such run directory\n")
