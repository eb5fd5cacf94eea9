"""`nmt evaluate` through the command line: scores, gate, and every mistake's message."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from nmt.evaluate import inputs as systems
from nmt.viz import plots
from tests.helpers import command
from tests.helpers.command import Result
from tests.helpers.toy import accept_changes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nmt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return command.nmt


@pytest.fixture
def run(toy_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# A run on its own test set


def test_a_run_is_scored_on_its_test_set(nmt: Callable[..., Result], run: Path) -> None:
    answer = nmt("evaluate", run, "--device", "cpu")
    assert answer.code == 0
    report = json.loads((run / "evaluation" / "report.json").read_text())
    hypotheses = (run / "evaluation" / "hypotheses.txt").read_text().split("\n")[:-1]
    references = (run / "test.trg.txt").read_text().split("\n")[:-1]
    assert report["segments"] == len(references) == len(hypotheses) == 12
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert report["scores"][0]["value"] == pytest.approx(bleu)
    interval = r" \[\d+\.\d\d, \d+\.\d\d\]  \(12 segments; nrefs:1\|bs:1000\|"
    assert re.match(rf"BLEU {bleu:.2f}{interval}", answer.out)
    assert "version:" + sacrebleu.__version__ in answer.out


def test_the_report_says_what_was_scored_and_how(nmt: Callable[..., Result], run: Path) -> None:
    nmt("evaluate", run, "--device", "cpu", "--beam", 2, "--length-penalty", 0.5)
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert report["search"]["beam"] == 2  # its own is 3
    assert report["search"]["length_penalty"] == 0.5
    source = hashlib.sha256((run / "test.src.txt").read_bytes()).hexdigest()
    assert report["sha256"]["source"] == source
    assert set(report["sha256"]) == {"source", "reference", "hypotheses"}


def test_evaluating_again_gives_the_same_report(nmt: Callable[..., Result], run: Path) -> None:
    nmt("evaluate", run, "--device", "cpu")
    first = (run / "evaluation" / "report.json").read_bytes()
    nmt("evaluate", run, "--device", "cpu", "--batch-size", 1)
    assert (run / "evaluation" / "report.json").read_bytes() == first


def test_other_texts_may_be_given(nmt: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    src, ref = write(tmp_path / "a.zh", "我喜欢猫。"), write(tmp_path / "a.en", "I like cats.")
    out = tmp_path / "there"
    answer = nmt("evaluate", run, "--src", src, "--ref", ref, "--output", out, "--device", "cpu")
    assert answer.code == 0
    assert json.loads((out / "report.json").read_text())["segments"] == 1
    assert not (run / "evaluation").exists()


def test_src_needs_ref(nmt: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    answer = nmt("evaluate", run, "--src", write(tmp_path / "a.zh", "我"))
    assert answer == (
        2, "", "error: --src and --ref go together: source lines and their references\n",
    )  # fmt: skip


# Hypotheses of any system


def test_hypotheses_need_no_model(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like cats.", "A dog.")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--output", tmp_path / "out")
    assert answer.code == 0
    assert answer.out.startswith("BLEU 100.00")
    assert (tmp_path / "out" / "report.json").is_file()


def test_hypotheses_need_references(nmt: Callable[..., Result], tmp_path: Path) -> None:
    answer = nmt("evaluate", write(tmp_path / "hyp", "I like cats."))
    assert answer == (
        2, "", "error: hypotheses need --ref, the references to score against\n",
    )  # fmt: skip
    assert nmt("evaluate", tmp_path / "hyp") == (
        2, "", "error: hypotheses need --ref, the references to score against\n",
    )  # fmt: skip


def test_unequal_line_counts_name_both(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "one", "two", "three")
    ref = write(tmp_path / "ref", "one", "two")
    answer = nmt("evaluate", hyp, "--ref", ref)
    assert answer == (
        2,
        "",
        f"error: 3 lines in {hyp}, 2 in {ref}\nhint: the files must correspond line by line\n",
    )


@pytest.mark.parametrize("line", ["▁I ▁like ▁cats", "I li@@ ke cats", "I like ca@@"])
@pytest.mark.parametrize("side", ["hyp", "ref"])
def test_text_in_pieces_is_refused(
    nmt: Callable[..., Result], tmp_path: Path, line: str, side: str
) -> None:
    files = {name: write(tmp_path / name, "A dog.", "I like cats.") for name in ("hyp", "ref")}
    write(files[side], "A dog.", line)
    answer = nmt("evaluate", files["hyp"], "--ref", files["ref"])
    assert answer == (
        2,
        "",
        f"error: {files[side]}:2: still in pieces ({line!r}), as 1 of 2 lines\n"
        "hint: join the pieces to plain text first; scores are computed on raw text only\n",
    )


def test_an_empty_file_is_refused(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp"), write(tmp_path / "ref", "one")
    answer = nmt("evaluate", hyp, "--ref", ref)
    assert answer == (2, "", f"error: {hyp}: is empty, nothing to score\n")


def test_a_missing_file_is_named_with_a_guess(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref = write(tmp_path / "reference.en", "one")
    answer = nmt("evaluate", ref, "--ref", tmp_path / "referense.en")
    assert answer == (
        2,
        "",
        f"error: {tmp_path / 'referense.en'}: no such file\nhint: did you mean {ref}?\n",
    )


# The gate


@pytest.mark.parametrize(
    ("option", "message"),
    [("--min-bleu", "gate: BLEU 0.00 is below"), ("--min-chrf", "gate: chrF2 0.00 is below")],
)
def test_a_missed_floor_exits_with_3(
    nmt: Callable[..., Result], tmp_path: Path, option: str, message: str
) -> None:
    hyp, ref = write(tmp_path / "hyp", "xyz"), write(tmp_path / "ref", "A dog barks at me.")
    answer = nmt("evaluate", hyp, "--ref", ref, option, 20)
    assert answer.code == 3
    assert message in answer.err


def test_a_met_floor_exits_with_0(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog barks at me.")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--min-bleu", 99, "--min-chrf", 99)
    assert answer.code == 0
    assert answer.err == (
        "gate: BLEU 100.00 reaches the floor of 99\n"
        "gate: chrF2 100.00 reaches the floor of 99\n"
        "report: evaluation/report.json\n"
    )


def test_a_floor_above_100_is_no_floor(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog.")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--min-bleu", 101)
    assert answer.code == 2
    assert "--min-bleu" in answer.err


# Runs that are not whole


def test_a_missing_run(nmt: Callable[..., Result], tmp_path: Path) -> None:
    answer = nmt("evaluate", tmp_path / "none")
    assert answer == (
        2,
        "",
        f"error: {tmp_path / 'none'}: no such run directory\n"
        "hint: nmt train makes one; see runs/\n",
    )


def test_no_run_at_all(
    nmt: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nmt("evaluate") == (
        2,
        "",
        "error: runs/: no finished run in it\n"
        "hint: train one with nmt train, or name one with --model\n",
    )


def test_a_folder_that_is_no_run(nmt: Callable[..., Result], run: Path) -> None:
    (run / "run.json").unlink()
    assert nmt("evaluate", run) == (
        2, "", f"error: {run}: not a run directory, or incomplete: run.json is missing\n",
    )  # fmt: skip


def test_a_damaged_description(nmt: Callable[..., Result], run: Path) -> None:
    (run / "run.json").write_text("{")
    answer = nmt("evaluate", run)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {run / 'run.json'}: damaged (")


def test_a_run_of_a_newer_format(nmt: Callable[..., Result], run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "format": 99}))
    answer = nmt("evaluate", run)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {run / 'run.json'}: format 99, this program reads up to")
    assert "hint: it was made by a newer nmt" in answer.err


def test_a_run_without_a_checkpoint(nmt: Callable[..., Result], run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert nmt("evaluate", run, "--device", "cpu") == (
        2,
        "",
        f"error: {run}: no checkpoint yet\nhint: let nmt train run until its first save\n",
    )


def test_damaged_weights(nmt: Callable[..., Result], run: Path) -> None:
    for path in run.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    answer = nmt("evaluate", run, "--device", "cpu")
    assert answer.code == 2
    assert "model.safetensors: damaged: its checksum differs from the one recorded" in answer.err


def test_a_foreign_tokenizer(nmt: Callable[..., Result], run: Path) -> None:
    shutil.copyfile(run / "trg.model", run / "src.model")
    assert nmt("evaluate", run, "--device", "cpu") == (
        2,
        "",
        f"error: {run / 'src'}.model: damaged: its checksum differs from the one recorded; not the "
        f"tokenizer this run was trained with\n"
        "hint: put the original file back: weights and tokenizers belong together\n",
    )


def test_a_test_set_that_was_cut(nmt: Callable[..., Result], run: Path) -> None:
    lines = (run / "test.trg.txt").read_text().split("\n")
    (run / "test.trg.txt").write_text("\n".join(lines[:-2]) + "\n")
    answer = nmt("evaluate", run, "--device", "cpu")
    assert f"error: {run / 'test.trg.txt'}: damaged: its checksum differs" in answer.err
    accept_changes(run)
    answer = nmt("evaluate", run, "--device", "cpu")
    assert answer.code == 2
    assert answer.err.startswith("error: 12 lines in test.src.txt, 11 in test.trg.txt\n")


def test_an_absent_gpu(nmt: Callable[..., Result], run: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    answer = nmt("evaluate", run, "--device", "cuda")
    assert answer.code == 2
    assert "--device cuda: PyTorch" in answer.err


# Sides


def test_swapped_sides_are_refused(nmt: Callable[..., Result], tmp_path: Path) -> None:
    zh, en = write(tmp_path / "zh", "我喜欢猫。"), write(tmp_path / "en", "I like cats.")
    assert nmt("evaluate", zh, "--ref", en) == (
        2,
        "",
        f"error: {zh}: looks Chinese (4 of 4 letters), English is scored here\n"
        "hint: are the sides swapped? hypotheses and references are English\n",
    )
    answer = nmt("evaluate", en, "--ref", zh)
    assert answer.err.startswith(f"error: {zh}: looks Chinese")


def test_a_source_that_is_not_chinese(
    nmt: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    en = write(tmp_path / "en", "I like cats.", "You like tea.")
    assert nmt("evaluate", run, "--src", en, "--ref", en) == (
        2,
        "",
        f"error: {en}: 0 of 2 lines contain a Chinese character: not a Chinese source\n"
        "hint: are --src and --ref swapped?\n",
    )


def test_chinese_cut_into_words_is_refused(
    nmt: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    zh = write(tmp_path / "zh", "好的。", "我们 喜欢 中国 音乐 和 北京 。")
    en = write(tmp_path / "en", "Fine.", "We like it.")
    answer = nmt("evaluate", run, "--src", zh, "--ref", en)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {zh}:2: Chinese cut into words by spaces (")
    assert "hint: give the raw text: the network's own tokenizer cuts it" in answer.err


def test_a_corpus_that_was_cut_up_before_is_refused(nmt: Callable[..., Result], run: Path) -> None:
    lines = (run / "test.trg.txt").read_text().splitlines()
    write(run / "test.trg.txt", *(f"▁{line}" for line in lines))
    accept_changes(run)
    answer = nmt("evaluate", run, "--device", "cpu")
    assert answer.code == 2
    assert answer.err.startswith("error: test.trg.txt:1: still in pieces (")


def test_one_line_of_the_users_own_may_look_like_pieces(
    nmt: Callable[..., Result], run: Path
) -> None:
    lines = (run / "test.trg.txt").read_text().splitlines()
    write(run / "test.trg.txt", "A diff starts with @@ and a number.", *lines[1:])
    accept_changes(run)
    assert nmt("evaluate", run, "--device", "cpu").code == 0


# Several references and further metrics


def test_several_references(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like the small cats.")
    ref = write(tmp_path / "ref", "I love the little cats.")
    answer = nmt("evaluate", hyp, "--ref", ref, "--ref", hyp)
    assert answer.out.startswith("BLEU 100.00")
    assert "nrefs:2" in answer.out
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert set(report["sha256"]) == {"reference", "reference2", "hypotheses"}


def test_a_short_second_reference_is_named(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "one", "two")
    short = write(tmp_path / "short", "one")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--ref", short)
    assert answer.err.startswith(f"error: 2 lines in {hyp}, 1 in {short}\n")


def test_further_metrics(nmt: Callable[..., Result], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like cats.")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--metric", "ter", "--metric", "chrF++")
    names = [line.split()[0] for line in answer.out.splitlines()]
    assert names == ["BLEU", "chrF2", "TER", "chrF2++"]
    assert nmt("evaluate", hyp, "--ref", hyp, "--metric", "meteor") == (
        2,
        "",
        "error: invalid value for '--metric': 'meteor' is not one of 'chrf++', 'ter'\n"
        "hint: nmt evaluate --help\n",
    )


# Comparing


REFERENCES = [f"the {n} cats sat on the {n} mats today" for n in range(60)]
WORSE = [line.replace("sat on", "is at") for line in REFERENCES[:-1]] + [REFERENCES[-1]]
MIXED = ["quite another thing", *WORSE[1:]]


def test_two_files_are_compared(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    a, b = write(tmp_path / "a.txt", *WORSE), write(tmp_path / "b.txt", *MIXED)
    answer = nmt("evaluate", "--compare", ref, a, b, "--ref", ref)
    assert answer.code == 0
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    found = saved["systems"][1]["against_first"]
    assert [(one["test"], one["name"]) for one in found] == [
        ("bs", "BLEU"), ("bs", "chrF2"), ("ar", "BLEU"), ("ar", "chrF2"),
    ]  # fmt: skip
    assert all(one["p_value"] < 0.01 and one["value"] < one["baseline"] for one in found)
    assert f"{found[0]['p_value']:.4f} *" in answer.out


def test_the_sentences_that_differ_most_are_shown_both_ways(
    nmt: Callable[..., Result], tmp_path: Path
) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    a = write(tmp_path / "a.txt", "quite another thing", *REFERENCES[1:])
    b = write(tmp_path / "b.txt", *REFERENCES[:-1], "nothing of it")
    answer = nmt("evaluate", "--compare", a, b, "--ref", ref)
    better, worse = answer.out.split(f"{b} is worse than {a}, by chrF2, most first:\n")
    assert better.split("most first:\n")[1].splitlines() == [
        "  line 1",
        f"    reference  {REFERENCES[0]}",
        f"    {a}: quite another thing",
        f"    {b}: {REFERENCES[0]}",
    ]
    assert worse.splitlines()[0] == "  line 60"


def test_runs_and_files_are_compared_on_the_runs_test_set(
    nmt: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    hyp = Path(shutil.copyfile(run / "test.trg.txt", tmp_path / "perfect.txt"))
    answer = nmt("evaluate", "--compare", run, hyp, "--device", "cpu")
    assert answer.code == 0
    assert f"| {hyp}" in answer.out
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    assert saved["systems"][1]["scores"][0]["value"] == pytest.approx(100)


def test_runs_of_different_test_sets(nmt: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    lines = (other / "test.trg.txt").read_text().split("\n")
    (other / "test.trg.txt").write_text("\n".join(["Changed.", *lines[1:]]))
    accept_changes(other)
    assert nmt("evaluate", "--compare", run, other) == (
        2,
        "",
        f"error: {run} and {other} have different test sets: their scores can't be compared\n"
        "hint: name one set for both: --src FILE --ref FILE\n",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{a}", "{a}", "--ref", "{a}"], "2 systems were given"),
        (["{a}", "--ref", "{a}", "--compare"], "--compare needs two systems or more"),
        (
            ["{a}", "--ref", "{a}", "--by-length", "auto"],
            "--by-length needs the source: --src FILE",
        ),
        (["{a}", "--ref", "{a}", "--chart", "x.svg"], "--chart requires --by-length"),
        (["{a}", "--ref", "{a}", "--by-length", "x"], "length bounds x: not rising whole numbers"),
        (
            ["{a}", "{a}", "--ref", "{a}", "--compare", "--min-bleu", "3"],
            "--min-bleu is for one system, 2 were given",
        ),
        (["nowhere", "--ref", "{a}"], "nowhere: no such run directory"),
        (["nowhere.v2", "--ref", "{a}"], "nowhere.v2: no such file"),
        ([".", "--ref", "{a}"], ".: not a run directory"),
        (["nowhere.txt", "--ref", "{a}"], "nowhere.txt: no such file"),
    ],
)
def test_what_does_not_fit_together(
    nmt: Callable[..., Result], tmp_path: Path, options: list[str], message: str
) -> None:
    a = write(tmp_path / "a.txt", "I like cats.")
    answer = nmt("evaluate", *(option.format(a=a) for option in options))
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith(f"error: {message}")


@pytest.mark.parametrize("option", ["--markdown", "--junit"])
def test_what_is_scored_is_not_written_over(
    nmt: Callable[..., Result], tmp_path: Path, option: str
) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    answer = nmt("evaluate", write(tmp_path / "hyp", *WORSE), "--ref", ref, option, ref)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {ref}: output would overwrite an input")
    assert ref.read_text().splitlines() == REFERENCES
    both = ("--markdown", tmp_path / "x", "--junit", tmp_path / "x")
    answer = nmt("evaluate", tmp_path / "hyp", "--ref", ref, *both)
    assert answer.err.startswith("error: two outputs have the same name")


def test_the_verdict_is_told_even_if_a_report_cannot_be_written(
    nmt: Callable[..., Result], tmp_path: Path
) -> None:
    ref, hyp = write(tmp_path / "ref", *REFERENCES), write(tmp_path / "hyp", *WORSE)
    answer = nmt("evaluate", hyp, "--ref", ref, "--min-bleu", 99, "--junit", hyp / "gate.xml")
    assert answer.code == 2
    assert answer.out.startswith("BLEU ")
    assert "gate: BLEU " in answer.err
    assert f"error: {hyp / 'gate.xml'}: cannot be written" in answer.err


def test_a_wrong_baseline_is_told_before_anything_is_translated(
    nmt: Callable[..., Result], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "translate_all", lambda *_: pytest.fail("translates"))
    answer = nmt("evaluate", run, "--baseline", tmp_path / "typo.json")
    assert answer.code == 2
    assert answer.err.splitlines()[-2].startswith(f"error: {tmp_path / 'typo.json'}: ")


def test_a_path_that_cannot_be_looked_at(nmt: Callable[..., Result], tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    answer = nmt("evaluate", long, "--ref", write(tmp_path / "ref", *REFERENCES))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {long}: File name too long\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(("stream", "code"), [("stdout", 2), ("stderr", 3)])
def test_a_full_disk_behind_a_stream_costs_no_report(
    tmp_path: Path, stream: str, code: int
) -> None:
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
        said = done.stderr.decode()
        assert "error: standard output: cannot be written (No space left on device)" in said
        assert "Traceback" not in said


# The baseline


def test_hypotheses_can_be_scored_again(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    nmt("evaluate", write(tmp_path / "hyp", *WORSE), "--ref", ref)
    written = tmp_path / "evaluation" / "hypotheses.txt"
    assert nmt("evaluate", written, "--ref", ref).code == 0
    assert nmt("evaluate", "--compare", written, ref, "--ref", ref).code == 0
    assert written.read_text().splitlines() == WORSE


def test_a_baseline_needs_no_source(nmt: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *(run / "test.trg.txt").read_text().splitlines())
    nmt("evaluate", ref, "--ref", ref, "--output", tmp_path / "before")
    report = tmp_path / "before" / "report.json"
    source = run / "test.src.txt"
    answer = nmt("evaluate", ref, "--src", source, "--ref", ref, "--baseline", report)
    assert answer.code == 0, answer.err
    assert json.loads(report.read_text())["file"] == str(ref)


def evaluated(nmt: Callable[..., Result], tmp_path: Path, lines: list[str], name: str) -> Path:
    ref, hyp = write(tmp_path / "ref", *REFERENCES), write(tmp_path / f"{name}.txt", *lines)
    nmt("evaluate", hyp, "--ref", ref, "--output", tmp_path / name)
    return tmp_path / name / "report.json"


def test_a_significant_drop_exits_with_3_and_is_told_everywhere(
    nmt: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = evaluated(nmt, tmp_path, REFERENCES, "before")
    now = write(tmp_path / "now.txt", *WORSE)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    (tmp_path / "summary.md").write_text("of an earlier step\n")
    answer = nmt(
        "evaluate", now, "--ref", tmp_path / "ref", "--baseline", baseline, "--max-drop", 1,
        "--junit", "gate.xml", "--markdown", "report.md",
    )  # fmt: skip
    assert answer.code == 3
    assert "a significant drop of more than 1" in answer.err
    told = (tmp_path / "report.md").read_text()
    assert "**failed**" in told
    assert (tmp_path / "summary.md").read_text() == f"of an earlier step\n{told}\n"
    assert 'failures="1"' in (tmp_path / "gate.xml").read_text()
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert report["gate"][0]["passed"] is False


def test_a_job_summary_that_cannot_be_written_is_a_warning(
    nmt: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "not there" / "summary.md"))
    hyp = write(tmp_path / "hyp", "I love China.")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--junit", "gate.xml")
    assert answer.code == 0
    assert "warning: the job summary is not written" in answer.err
    assert Path("gate.xml").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    nmt: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)
    answer = nmt("evaluate", run)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(
        f"error: {run / 'evaluation'}: cannot be written, the report belongs there\n"
        "hint: name another folder: --output DIR\n"
    )


def test_no_drop_exits_with_0(nmt: Callable[..., Result], tmp_path: Path) -> None:
    baseline = evaluated(nmt, tmp_path, WORSE, "before")
    now = write(tmp_path / "now.txt", *WORSE)
    answer = nmt("evaluate", now, "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer.code == 0
    assert "+0.00 (p = 1.0000)" in answer.err


def test_a_baseline_of_another_test_set(nmt: Callable[..., Result], tmp_path: Path) -> None:
    baseline = evaluated(nmt, tmp_path, WORSE, "before")
    ref = write(tmp_path / "other", *WORSE)
    answer = nmt("evaluate", ref, "--ref", ref, "--baseline", baseline)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {baseline}: is of another test set: its reference has")
    assert "hint: make a baseline on this test set with nmt evaluate" in answer.err


def test_a_baseline_is_not_written_over(nmt: Callable[..., Result], tmp_path: Path) -> None:
    baseline = evaluated(nmt, tmp_path, REFERENCES, "before")
    before = baseline.read_bytes()
    worse = write(tmp_path / "now", *WORSE)
    words = ("--ref", tmp_path / "ref", "--baseline", baseline, "--output", baseline.parent)
    answer = nmt("evaluate", worse, *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(
        f"error: --baseline {baseline}: this evaluation would write its own report over it\nhint: "
    )
    assert baseline.read_bytes() == before


def test_blank_references_are_no_references(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref, blank = (
        write(tmp_path / "ref", *REFERENCES),
        write(tmp_path / "blank", *[""] * len(REFERENCES)),
    )
    answer = nmt("evaluate", ref, "--ref", ref, "--ref", blank)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {blank}: every line is blank, nothing to score against\n"


def test_a_drop_needs_what_it_is_measured_from(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    answer = nmt("evaluate", ref, "--ref", ref, "--max-drop", 1)
    assert (answer.code, answer.err) == (2, "error: --max-drop requires --baseline\n")


@pytest.mark.parametrize(("gate", "code"), [((), 0), (("--min-bleu", "100"), 3)])
def test_a_reader_that_goes_away_changes_no_exit_code(
    tmp_path: Path, gate: tuple[str, ...], code: int
) -> None:
    write(tmp_path / "hyp", *WORSE)
    ref = write(tmp_path / "ref", *REFERENCES)
    command = [sys.executable, "-m", "nmt", "evaluate", str(tmp_path / "hyp"), "--ref", str(ref)]
    command += ["--output", str(tmp_path / "out"), *gate]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=120) == code


def test_a_baseline_that_is_not_a_number(nmt: Callable[..., Result], tmp_path: Path) -> None:
    baseline = evaluated(nmt, tmp_path, WORSE, "before")
    report = json.loads(baseline.read_text())
    report["scores"][0]["value"] = float("nan")
    baseline.write_text(json.dumps(report))
    answer = nmt("evaluate", tmp_path / "ref", "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer == (
        2,
        "",
        f"error: {baseline}: BLEU is nan, not a number\n"
        "hint: make the baseline again with nmt evaluate\n",
    )


def test_a_baseline_of_a_newer_program(nmt: Callable[..., Result], tmp_path: Path) -> None:
    baseline = evaluated(nmt, tmp_path, WORSE, "before")
    baseline.write_text(json.dumps({**json.loads(baseline.read_text()), "format": 7}))
    answer = nmt("evaluate", tmp_path / "ref", "--ref", tmp_path / "ref", "--baseline", baseline)
    assert answer == (
        2,
        "",
        f"error: {baseline}: report format 7, this program reads up to 1\n"
        "hint: it was made by a newer nmt: git pull in its clone, and install it again\n",
    )


# By length, and the page


def test_by_length_of_two_runs_with_a_chart(
    nmt: Callable[..., Result], run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    answer = nmt(
        "evaluate", "--by-length", "5,7", run, run / "test.trg.txt",
        "--chart", "lengths.svg", "--device", "cpu",
    )  # fmt: skip
    assert answer.code == 0
    rows = [line for line in answer.out.splitlines() if line.startswith(("| 1-5", "| 6-7", "| 8+"))]
    lengths = [len(line) for line in (run / "test.src.txt").read_text().splitlines()]
    shown = [int(row.split("|")[2]) for row in rows]
    counts = [sum(low <= n <= high for n in lengths) for low, high in ((1, 5), (6, 7), (8, 99))]
    assert shown == [count for count in counts if count]
    picture = (tmp_path / "lengths.svg").read_text()
    assert "source length in characters" in picture  # text is kept as text
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    assert set(saved["by_length"]["scores"]) == {str(run), str(run / "test.trg.txt")}


def test_a_chart_of_another_kind(nmt: Callable[..., Result], run: Path) -> None:
    answer = nmt("evaluate", "--by-length", "auto", run, "--chart", "lengths.gif")
    assert answer == (
        2,
        "",
        "error: lengths.gif: unknown chart format .gif\n"
        "hint: name a file that ends in .svg or .png\n",
    )


def test_the_page_stands_alone(nmt: Callable[..., Result], run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with (run / "test.src.txt").open("a") as src, (run / "test.trg.txt").open("a") as trg:
        src.write("我喜欢<b>猫</b>。\n")
        trg.write("I like <b>cats</b>.\n")
    accept_changes(run)
    answer = nmt("evaluate", run, "--html", "report.html", "--device", "cpu")
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


def test_a_page_of_a_run_without_its_manifest(nmt: Callable[..., Result], run: Path) -> None:
    pytest.importorskip("matplotlib")
    (run / "manifest.json").write_text("{")
    answer = nmt("evaluate", run, "--html", "report.html", "--device", "cpu")
    assert answer.code == 2
    assert f"error: {run / 'manifest.json'}: missing or damaged (" in answer.err
    (run / "manifest.json").unlink()
    answer = nmt("evaluate", run, "--html", "report.html", "--device", "cpu")
    assert answer.code == 0
    assert "The run has no manifest.json" in Path("report.html").read_text(encoding="utf-8")


def test_a_page_of_hypotheses_needs_no_run(nmt: Callable[..., Result], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    hyp = write(tmp_path / "hyp", "I like cats.")
    src = write(tmp_path / "src", "我喜欢猫。")
    answer = nmt("evaluate", hyp, "--ref", hyp, "--src", src, "--html", "report.html")
    assert answer.code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "我喜欢猫。" in page
    assert "<h2>Training" not in page


def test_page_without_matplotlib_has_no_charts(
    nmt: Callable[..., Result], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "is_installed", lambda: False)
    answer = nmt("evaluate", run, "--html", "report.html", "--device", "cpu")
    assert answer.code == 0, answer.err
    page = Path("report.html").read_text(encoding="utf-8")
    assert "No training curves: matplotlib is not installed (pip install" in page
    assert "<svg" not in page
    assert "By source length" in page


def test_one_line_among_many_references_may_look_segmented(
    nmt: Callable[..., Result], tmp_path: Path
) -> None:
    ref = write(tmp_path / "ref", *REFERENCES, "A diff starts with @@ and a number.")
    assert nmt("evaluate", ref, "--ref", ref).code == 0


def test_blank_lines_in_hypotheses_and_references(
    nmt: Callable[..., Result], tmp_path: Path
) -> None:
    ref = write(tmp_path / "ref", "I love China.", "")
    answer = nmt("evaluate", ref, "--ref", ref, "--metric", "ter", "--metric", "chrf++")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("BLEU 100.00 [")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_file_name_that_is_not_utf8(nmt: Callable[..., Result], tmp_path: Path) -> None:
    ref = write(tmp_path / os.fsdecode(b"ref\xff.txt"), *REFERENCES)
    outputs = ("--html", "a.html", "--markdown", "a.md", "--junit", "a.xml")
    answer = nmt("evaluate", ref, "--ref", ref, "--min-bleu", 1, *outputs)
    assert answer.code == 0, answer.err
    assert all(Path(name).stat().st_size for name in outputs[1::2])
    assert json.loads(Path("evaluation/report.json").read_text())["segments"] == len(REFERENCES)
