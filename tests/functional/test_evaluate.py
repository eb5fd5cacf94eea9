"""`nmt evaluate` through the command line: scores, gate, and every mistake's message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import sacrebleu

from nmt import cli

CONFIG = """
run: {run}
data:
  dir: {data}
  sources: [{{source: tsv, path: {tsv}}}]
  dev: 8
  test: 12
  src_vocab: 330
  trg_vocab: 340
model: {{embedding: 8, encoder: 8, decoder: 8, attention_size: 8, dropout: 0}}
train: {{epochs: 2, batch_tokens: 200, warmup: 1, samples: 0}}
search: {{beam: 2}}
"""
SUBJECTS = [("我", "I"), ("你", "you"), ("他们", "they"), ("老师", "the teachers")]
VERBS = [("喜欢", "like"), ("看见", "see"), ("需要", "need"), ("知道", "know")]
OBJECTS = [("苹果", "apples"), ("猫", "the cat"), ("水", "water"), ("书", "books"), ("家", "home")]


class Answer(NamedTuple):
    """What the command said, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def nmt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Answer]:
    """Run the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["nmt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        code = stop.value.code
        return Answer(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of a tiny network; what it has learned does not matter."""
    from nmt.config import load_config
    from nmt.prepare.pipeline import prepare
    from nmt.train.loop import train

    folder = tmp_path_factory.mktemp("evaluate")
    lines = [
        f"{s}{v}{o}。\t{t} {w} {p}.".replace("the", "the", 1)
        for s, t in SUBJECTS
        for v, w in VERBS
        for o, p in OBJECTS
    ]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = CONFIG.format(run=folder / "run", data=folder / "data", tsv=folder / "pairs.tsv")
    (folder / "config.yaml").write_text(text)
    config = load_config(folder / "config.yaml")
    prepare(config)
    train(config, "cpu")
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# A run on its own test set


def test_a_run_is_scored_on_its_test_set(nmt: Callable[..., Answer], run: Path) -> None:
    answer = nmt("evaluate", "--model", run, "--device", "cpu")
    assert answer.code == 0
    report = json.loads((run / "evaluation" / "report.json").read_text())
    hypotheses = (run / "evaluation" / "hypotheses.txt").read_text().split("\n")[:-1]
    references = (run / "test.trg.txt").read_text().split("\n")[:-1]
    assert report["segments"] == len(references) == len(hypotheses) == 12
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert report["scores"][0]["value"] == pytest.approx(bleu)
    assert f"BLEU {bleu:.2f}" in answer.out
    assert "version:" + sacrebleu.__version__ in answer.out


def test_the_report_says_what_was_scored_and_how(nmt: Callable[..., Answer], run: Path) -> None:
    nmt("evaluate", "--model", run, "--device", "cpu", "--beam", 3, "--alpha", 0.5)
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert report["search"]["beam"] == 3
    assert report["search"]["alpha"] == 0.5
    source = hashlib.sha256((run / "test.src.txt").read_bytes()).hexdigest()
    assert report["sha256"]["source"] == source
    assert set(report["sha256"]) == {"source", "reference", "hypotheses"}


def test_evaluating_again_gives_the_same_report(nmt: Callable[..., Answer], run: Path) -> None:
    nmt("evaluate", "--model", run, "--device", "cpu")
    first = (run / "evaluation" / "report.json").read_bytes()
    nmt("evaluate", "--model", run, "--device", "cpu", "--batch-size", 1)
    assert (run / "evaluation" / "report.json").read_bytes() == first


def test_other_texts_may_be_given(nmt: Callable[..., Answer], run: Path, tmp_path: Path) -> None:
    src, ref = write(tmp_path / "a.zh", "我喜欢猫。"), write(tmp_path / "a.en", "I like cats.")
    out = tmp_path / "there"
    answer = nmt(
        "evaluate", "--model", run, "--src", src, "--ref", ref, "--output", out, "--device", "cpu"
    )
    assert answer.code == 0
    assert json.loads((out / "report.json").read_text())["segments"] == 1
    assert not (run / "evaluation").exists()


def test_src_needs_ref(nmt: Callable[..., Answer], run: Path, tmp_path: Path) -> None:
    answer = nmt("evaluate", "--model", run, "--src", write(tmp_path / "a.zh", "我"))
    assert answer == (
        2, "", "error: --src and --ref go together: source lines and their references\n",
    )  # fmt: skip


# Hypotheses of any system


def test_hypotheses_need_no_model(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like cats.", "A dog.")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", hyp, "--output", tmp_path / "out")
    assert answer.code == 0
    assert answer.out.startswith("BLEU 100.00")
    assert (tmp_path / "out" / "report.json").is_file()


def test_hypotheses_need_references(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    answer = nmt("evaluate", "--hypotheses", write(tmp_path / "hyp", "I like cats."))
    assert answer == (
        2, "", "error: --hypotheses needs --ref, the references to score against\n",
    )  # fmt: skip


def test_unequal_line_counts_name_both(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "one", "two", "three")
    ref = write(tmp_path / "ref", "one", "two")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", ref)
    assert answer == (
        2,
        "",
        f"error: 3 lines in {hyp}, 2 in {ref}\nhint: the files must correspond line by line\n",
    )


@pytest.mark.parametrize("line", ["▁I ▁like ▁cats", "I li@@ ke cats", "I like ca@@"])
@pytest.mark.parametrize("side", ["hyp", "ref"])
def test_text_in_pieces_is_refused(
    nmt: Callable[..., Answer], tmp_path: Path, line: str, side: str
) -> None:
    files = {name: write(tmp_path / name, "A dog.", "I like cats.") for name in ("hyp", "ref")}
    write(files[side], "A dog.", line)
    answer = nmt("evaluate", "--hypotheses", files["hyp"], "--ref", files["ref"])
    assert answer == (
        2,
        "",
        f"error: {files[side]}:2: still in pieces ({line!r})\n"
        "hint: join the pieces back to plain text first; scores are made on raw text only\n",
    )


def test_an_empty_file_is_refused(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp"), write(tmp_path / "ref", "one")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", ref)
    assert answer == (2, "", f"error: {hyp}: is empty, nothing to score\n")


def test_a_missing_file_is_named_with_a_guess(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    ref = write(tmp_path / "reference.en", "one")
    answer = nmt("evaluate", "--hypotheses", ref, "--ref", tmp_path / "referense.en")
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
    nmt: Callable[..., Answer], tmp_path: Path, option: str, message: str
) -> None:
    hyp, ref = write(tmp_path / "hyp", "xyz"), write(tmp_path / "ref", "A dog barks at me.")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", ref, option, 20)
    assert answer.code == 3
    assert message in answer.err


def test_a_met_floor_exits_with_0(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog barks at me.")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", hyp, "--min-bleu", 99, "--min-chrf", 99)
    assert answer.code == 0
    assert answer.err == (
        "report: evaluation/report.json\n"
        "gate: BLEU 100.00 reaches the floor of 99\n"
        "gate: chrF2 100.00 reaches the floor of 99\n"
    )


def test_a_floor_above_100_is_no_floor(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "A dog.")
    answer = nmt("evaluate", "--hypotheses", hyp, "--ref", hyp, "--min-bleu", 101)
    assert answer.code == 2
    assert "--min-bleu" in answer.err


# Runs that are not whole


def test_a_missing_run(nmt: Callable[..., Answer], tmp_path: Path) -> None:
    answer = nmt("evaluate", "--model", tmp_path / "none")
    assert answer == (
        2,
        "",
        f"error: {tmp_path / 'none'}: no such run directory\n"
        "hint: nmt train makes one; see runs/\n",
    )


def test_no_run_at_all(
    nmt: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert nmt("evaluate") == (
        2,
        "",
        "error: runs/: no finished run in it\n"
        "hint: train one with nmt train, or name one with --model\n",
    )


def test_a_folder_that_is_no_run(nmt: Callable[..., Answer], run: Path) -> None:
    (run / "run.json").unlink()
    assert nmt("evaluate", "--model", run) == (
        2, "", f"error: {run}: not a run directory, or incomplete: run.json is missing\n",
    )  # fmt: skip


def test_a_damaged_description(nmt: Callable[..., Answer], run: Path) -> None:
    (run / "run.json").write_text("{")
    answer = nmt("evaluate", "--model", run)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {run / 'run.json'}: damaged (")


def test_a_run_of_a_newer_format(nmt: Callable[..., Answer], run: Path) -> None:
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "format": 99}))
    answer = nmt("evaluate", "--model", run)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {run / 'run.json'}: format 99, this program reads up to")
    assert "hint: it was made by a newer nmt" in answer.err


def test_a_run_without_a_checkpoint(nmt: Callable[..., Answer], run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    assert nmt("evaluate", "--model", run, "--device", "cpu") == (
        2,
        "",
        f"error: {run}: no checkpoint yet\nhint: let nmt train run until its first save\n",
    )


def test_damaged_weights(nmt: Callable[..., Answer], run: Path) -> None:
    for path in run.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    answer = nmt("evaluate", "--model", run, "--device", "cpu")
    assert answer.code == 2
    assert "model.safetensors: damaged: its checksum differs from the one recorded" in answer.err


def test_a_foreign_tokenizer(nmt: Callable[..., Answer], run: Path) -> None:
    shutil.copyfile(run / "trg.model", run / "src.model")
    assert nmt("evaluate", "--model", run, "--device", "cpu") == (
        2,
        "",
        f"error: {run / 'src'}.model: is not the tokenizer this run was trained with\n"
        "hint: put the original file back: weights and pieces belong together\n",
    )


def test_a_test_set_that_was_cut(nmt: Callable[..., Answer], run: Path) -> None:
    lines = (run / "test.trg.txt").read_text().split("\n")
    (run / "test.trg.txt").write_text("\n".join(lines[:-2]) + "\n")
    answer = nmt("evaluate", "--model", run, "--device", "cpu")
    assert answer.code == 2
    assert answer.err.startswith("error: 12 lines in test.src.txt, 11 in test.trg.txt\n")


def test_an_absent_gpu(nmt: Callable[..., Answer], run: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    answer = nmt("evaluate", "--model", run, "--device", "cuda")
    assert answer.code == 2
    assert "--device cuda: PyTorch" in answer.err
