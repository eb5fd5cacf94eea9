"""`nmt evaluate` as a quality gate: floors, baseline, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nmt.translate.translator import Translator
from tests.helpers.command import ROOT
from tests.helpers.evaluating import REFERENCES, WORSE, evaluate_file, write
from tests.helpers.preparing import Run


@pytest.mark.parametrize(
    ("option", "message"),
    [("--min-bleu", "gate: BLEU 0.00 is below"), ("--min-chrf", "gate: chrF2 0.00 is below")],
)
def test_score_below_its_floor_exits_with_3(
    run: Run, tmp_path: Path, option: str, message: str
) -> None:
    hyp, ref = write(tmp_path / "hyp", "xyz"), write(tmp_path / "ref", "A dog barks at me.")
    answer = run("evaluate", hyp, "--ref", ref, option, 20)
    assert answer.code == 3
    assert message in answer.err


def test_score_at_its_floor_exits_with_0(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog barks at me.")
    answer = run("evaluate", hyp, "--ref", hyp, "--min-bleu", 99, "--min-chrf", 99)
    assert answer.code == 0
    assert answer.err == (
        "gate: BLEU 100.00 reaches the floor of 99\n"
        "gate: chrF2 100.00 reaches the floor of 99\n"
        "report: evaluation/report.json\n"
    )


def test_floor_above_100_is_refused(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog.")
    answer = run("evaluate", hyp, "--ref", hyp, "--min-bleu", 101)
    assert answer.code == 2
    assert "--min-bleu" in answer.err


def test_verdict_is_printed_even_if_a_report_cannot_be_written(run: Run, tmp_path: Path) -> None:
    ref, hyp = write(tmp_path / "ref", *REFERENCES), write(tmp_path / "hyp", *WORSE)
    answer = run("evaluate", hyp, "--ref", ref, "--min-bleu", 99, "--junit", hyp / "gate.xml")
    assert answer.code == 2
    assert answer.out.startswith("BLEU ")
    assert "gate: BLEU " in answer.err
    assert f"error: {hyp / 'gate.xml'}: cannot be written" in answer.err


def test_missing_baseline_is_refused_before_translating(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Translator, "stream", lambda *_: pytest.fail("translates"))
    answer = run("evaluate", model, "--baseline", tmp_path / "typo.json")
    assert answer.code == 2
    assert answer.err.splitlines()[-2].startswith(f"error: {tmp_path / 'typo.json'}: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("stream", "code"), [("stdout", 2), ("stderr", 3)])
def test_full_disk_at_a_stream_keeps_the_reports(tmp_path: Path, stream: str, code: int) -> None:
    ref, hyp = write(tmp_path / "ref", *REFERENCES), write(tmp_path / "hyp", *WORSE)
    words = ["evaluate", str(hyp), "--ref", str(ref), "--min-bleu", "99", "--junit", "gate.xml"]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "nmt", *words], cwd=tmp_path, **{**streams, stream: full}
        )
    assert done.returncode == code
    assert (tmp_path / "gate.xml").exists()
    if stream == "stdout":
        message = done.stderr.decode()
        assert "error: standard output: cannot be written (No space left on device)" in message
        assert "Traceback" not in message


def test_baseline_without_source_is_accepted(run: Run, model: Path, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *(model / "test.trg.txt").read_text().splitlines())
    run("evaluate", ref, "--ref", ref, "--output", tmp_path / "before")
    report = tmp_path / "before" / "report.json"
    source = model / "test.src.txt"
    answer = run("evaluate", ref, "--src", source, "--ref", ref, "--baseline", report)
    assert answer.code == 0, answer.err
    assert json.loads(report.read_text())["file"] == str(ref)


def test_significant_drop_exits_with_3_and_is_in_every_report(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, REFERENCES, "before")
    now = write(tmp_path / "now.txt", *WORSE)
    answer = run(
        "evaluate", now, "--ref", tmp_path / "ref", "--baseline", baseline, "--max-drop", 1,
        "--junit", "gate.xml", "--markdown", "report.md",
    )  # fmt: skip
    assert answer.code == 3
    assert "a significant drop of more than 1" in answer.err
    assert "**failed**" in (tmp_path / "report.md").read_text()
    assert 'failures="1"' in (tmp_path / "gate.xml").read_text()
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert report["gate"][0]["passed"] is False


def test_no_drop_exits_with_0(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, WORSE, "before")
    now = write(tmp_path / "now.txt", *WORSE)
    answer = run("evaluate", now, "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer.code == 0
    assert "+0.00 (p = 1.0000)" in answer.err


def test_baseline_of_another_test_set_is_refused(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, WORSE, "before")
    ref = write(tmp_path / "other", *WORSE)
    answer = run("evaluate", ref, "--ref", ref, "--baseline", baseline)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {baseline}: is of another test set: its reference has")
    assert "hint: make a baseline on this test set with nmt evaluate" in answer.err


def test_report_may_not_overwrite_its_baseline(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, REFERENCES, "before")
    before = baseline.read_bytes()
    worse = write(tmp_path / "now", *WORSE)
    words = ("--ref", tmp_path / "ref", "--baseline", baseline, "--output", baseline.parent)
    answer = run("evaluate", worse, *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(
        f"error: --baseline {baseline}: the report of this evaluation would overwrite it\nhint: "
    )
    assert baseline.read_bytes() == before


def test_max_drop_requires_a_baseline(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    answer = run("evaluate", ref, "--ref", ref, "--max-drop", 1)
    assert (answer.code, answer.err) == (2, "error: --max-drop requires --baseline\n")


@pytest.mark.parametrize(("gate", "code"), [((), 0), (("--min-bleu", "100"), 3)])
def test_closed_stdout_does_not_change_the_exit_code(
    tmp_path: Path, gate: tuple[str, ...], code: int
) -> None:
    write(tmp_path / "hyp", *WORSE)
    ref = write(tmp_path / "ref", *REFERENCES)
    arguments = [sys.executable, "-m", "nmt", "evaluate", str(tmp_path / "hyp"), "--ref", str(ref)]
    arguments += ["--output", str(tmp_path / "out"), *gate]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == code


def test_baseline_with_a_non_finite_score_is_refused(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, WORSE, "before")
    report = json.loads(baseline.read_text())
    report["scores"][0]["value"] = float("nan")
    baseline.write_text(json.dumps(report))
    answer = run("evaluate", tmp_path / "ref", "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer == (
        2,
        "",
        f"error: {baseline}: BLEU is nan, not a number\n"
        "hint: make the baseline again with nmt evaluate\n",
    )


def test_baseline_of_a_newer_format_is_refused(run: Run, tmp_path: Path) -> None:
    baseline = evaluate_file(run, tmp_path, WORSE, "before")
    baseline.write_text(json.dumps({**json.loads(baseline.read_text()), "format": 7}))
    answer = run("evaluate", tmp_path / "ref", "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer == (
        2,
        "",
        f"error: {baseline}: report format 7, this program reads up to 1\n"
        "hint: it was made by a newer nmt: git pull in its clone, and install it again\n",
    )
