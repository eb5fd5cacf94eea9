"""Files written by `nmt evaluate`."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
import sacrebleu

from nmt.viz import plots
from tests.helpers.evaluating import REFERENCES, WORSE, write
from tests.helpers.preparing import Run
from tests.helpers.toy import accept_changes


@pytest.mark.parametrize("option", ["--markdown", "--junit"])
def test_report_may_not_overwrite_an_input(run: Run, tmp_path: Path, option: str) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    answer = run("evaluate", write(tmp_path / "hyp", *WORSE), "--ref", ref, option, ref)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {ref}: output would overwrite an input")
    assert ref.read_text().splitlines() == REFERENCES
    both = ("--markdown", tmp_path / "x", "--junit", tmp_path / "x")
    answer = run("evaluate", tmp_path / "hyp", "--ref", ref, *both)
    assert answer.err.startswith("error: two outputs have the same path")


def test_written_hypotheses_can_be_scored_again(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    run("evaluate", write(tmp_path / "hyp", *WORSE), "--ref", ref)
    written = tmp_path / "evaluation" / "hypotheses.txt"
    assert run("evaluate", written, "--ref", ref).code == 0
    assert run("evaluate", "--compare", written, ref, "--ref", ref).code == 0
    assert written.read_text().splitlines() == WORSE


def test_unwritable_folder_is_refused_before_translating(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    answer = run("evaluate", model)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(
        f"error: {model / 'evaluation'}: cannot be written, the report belongs there\n"
        "hint: name another folder: --output DIR\n"
    )


def test_page_is_escaped_and_has_no_external_assets(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with (model / "test.src.txt").open("a") as src, (model / "test.trg.txt").open("a") as trg:
        src.write("我喜欢<b>猫</b>。\n")
        trg.write("I like <b>cats</b>.\n")
    accept_changes(model)
    answer = run("evaluate", model, "--html", "report.html", "--device", "cpu")
    assert answer.code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for title in (
        "Scores",
        "By source length",
        "Training",
        "Worst sentences",
        "Data",
        "Reproduce",
    ):
        assert f"<h2>{title}" in page
    assert "<b>cats" not in page
    assert "&lt;b&gt;cats" in page
    assert page.count("<script") == 1
    for address in re.findall(r"(?:src|href)=\"([^\"]*)", page):
        assert address.startswith("#")
    assert "version:" + sacrebleu.__version__ in page


def test_page_of_a_run_without_manifest(run: Run, model: Path) -> None:
    pytest.importorskip("matplotlib")
    (model / "manifest.json").write_text("{")
    answer = run("evaluate", model, "--html", "report.html", "--device", "cpu")
    assert answer.code == 2
    assert f"error: {model / 'manifest.json'}: missing or damaged (" in answer.err
    (model / "manifest.json").unlink()
    answer = run("evaluate", model, "--html", "report.html", "--device", "cpu")
    assert answer.code == 0
    assert "The run has no manifest.json" in Path("report.html").read_text(encoding="utf-8")


def test_page_of_hypotheses_without_a_run(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    hyp = write(tmp_path / "hyp", "I like cats.")
    src = write(tmp_path / "src", "我喜欢猫。")
    answer = run("evaluate", hyp, "--ref", hyp, "--src", src, "--html", "report.html")
    assert answer.code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "我喜欢猫。" in page
    assert "<h2>Training" not in page


def test_page_without_matplotlib_has_no_charts(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "is_installed", lambda: False)
    answer = run("evaluate", model, "--html", "report.html", "--device", "cpu")
    assert answer.code == 0, answer.err
    page = Path("report.html").read_text(encoding="utf-8")
    assert "No training curves: matplotlib is not installed (pip install" in page
    assert "<svg" not in page
    assert "By source length" in page


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_file_name_that_is_not_utf8_is_written_to_every_report(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / os.fsdecode(b"ref\xff.txt"), *REFERENCES)
    outputs = ("--html", "a.html", "--markdown", "a.md", "--junit", "a.xml")
    answer = run("evaluate", ref, "--ref", ref, "--min-bleu", 1, *outputs)
    assert answer.code == 0, answer.err
    assert all(Path(name).stat().st_size for name in outputs[1::2])
    assert json.loads(Path("evaluation/report.json").read_text())["segments"] == len(REFERENCES)


def test_markdown_dash_writes_only_markdown_to_stdout(run: Run, tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp", *WORSE), write(tmp_path / "ref", *REFERENCES)
    options = ("--ref", ref, "--min-bleu", 1, "--by-length", "auto", "--src")
    src = write(tmp_path / "src", *["我喜欢猫。"] * len(REFERENCES))
    answer = run("evaluate", hyp, *options, src, "--markdown", "-")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("## nmt evaluate\n\n| system")
    assert "### Gate" in answer.out
    assert "### By source length" in answer.out
    run("evaluate", hyp, *options, src, "--markdown", "report.md")
    assert Path("report.md").read_text() == answer.out
    assert not Path("-").exists()


def test_job_summary_is_not_written_without_an_option(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    ref = write(tmp_path / "ref", *REFERENCES)
    assert run("evaluate", ref, "--ref", ref).code == 0
    assert not (tmp_path / "summary.md").exists()
