"""`nmt evaluate --compare` and `--by-length`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.evaluating import MIXED, REFERENCES, WORSE, write
from tests.helpers.preparing import Run
from tests.helpers.toy import accept_changes


def test_files_are_compared_by_two_paired_tests(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    a, b = write(tmp_path / "a.txt", *WORSE), write(tmp_path / "b.txt", *MIXED)
    answer = run("evaluate", "--compare", ref, a, b, "--ref", ref)
    assert answer.code == 0
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    tests = saved["systems"][1]["against_first"]
    assert [(result["test"], result["name"]) for result in tests] == [
        ("bs", "BLEU"), ("bs", "chrF2"), ("ar", "BLEU"), ("ar", "chrF2"),
    ]  # fmt: skip
    assert all(t["p_value"] < 0.01 and t["value"] < t["baseline"] for t in tests)
    assert f"{tests[0]['p_value']:.4f} *" in answer.out


def test_sentences_with_the_largest_difference_are_listed_both_ways(
    run: Run, tmp_path: Path
) -> None:
    ref = write(tmp_path / "ref", *REFERENCES)
    a = write(tmp_path / "a.txt", "quite another thing", *REFERENCES[1:])
    b = write(tmp_path / "b.txt", *REFERENCES[:-1], "nothing of it")
    answer = run("evaluate", "--compare", a, b, "--ref", ref)
    better, worse = answer.out.split(f"{b} is worse than {a}, largest difference in chrF2:\n")
    assert better.split("difference in chrF2:\n")[1].splitlines() == [
        "  line 1",
        f"    reference  {REFERENCES[0]}",
        f"    {a}: quite another thing",
        f"    {b}: {REFERENCES[0]}",
    ]
    assert worse.splitlines()[0] == "  line 60"


def test_runs_and_files_are_compared_on_the_runs_test_set(
    run: Run, model: Path, tmp_path: Path
) -> None:
    hyp = Path(shutil.copyfile(model / "test.trg.txt", tmp_path / "perfect.txt"))
    answer = run("evaluate", "--compare", model, hyp, "--device", "cpu")
    assert answer.code == 0
    assert f"| {hyp}" in answer.out
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    assert saved["systems"][1]["scores"][0]["value"] == pytest.approx(100)


def test_runs_with_different_test_sets_are_refused(run: Run, model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "other"))
    lines = (copy / "test.trg.txt").read_text().split("\n")
    (copy / "test.trg.txt").write_text("\n".join(["Changed.", *lines[1:]]))
    accept_changes(copy)
    assert run("evaluate", "--compare", model, copy) == (
        2,
        "",
        f"error: {model} and {copy} have different test sets: their scores can't be compared\n"
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
        (
            ["{a}", "--ref", "{a}", "--by-length", "x"],
            "length bounds x: not increasing whole numbers",
        ),
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
def test_contradicting_options_are_refused(
    run: Run, tmp_path: Path, options: list[str], message: str
) -> None:
    a = write(tmp_path / "a.txt", "I like cats.")
    answer = run("evaluate", *(option.format(a=a) for option in options))
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith(f"error: {message}")


def test_by_length_of_a_run_and_a_file_with_a_chart(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    answer = run(
        "evaluate", "--by-length", "5,7", model, model / "test.trg.txt",
        "--chart", "lengths.svg", "--device", "cpu",
    )  # fmt: skip
    assert answer.code == 0
    rows = [line for line in answer.out.splitlines() if line.startswith(("| 1-5", "| 6-7", "| 8+"))]
    lengths = [len(line) for line in (model / "test.src.txt").read_text().splitlines()]
    shown = [int(row.split("|")[2]) for row in rows]
    counts = [sum(low <= n <= high for n in lengths) for low, high in ((1, 5), (6, 7), (8, 99))]
    assert shown == [count for count in counts if count]
    picture = (tmp_path / "lengths.svg").read_text()
    assert "source length in characters" in picture  # text is kept as text
    saved = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    assert set(saved["by_length"]["scores"]) == {str(model), str(model / "test.trg.txt")}


def test_unknown_chart_format_is_refused(run: Run, model: Path) -> None:
    answer = run("evaluate", "--by-length", "auto", model, "--chart", "lengths.gif")
    assert answer == (
        2,
        "",
        "error: lengths.gif: unknown chart format .gif\n"
        "hint: name a file that ends in .svg or .png\n",
    )
