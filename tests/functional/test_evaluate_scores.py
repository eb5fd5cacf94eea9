"""`nmt evaluate`: scores of runs and files, and refusals of unfit inputs."""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
from pathlib import Path

import pytest
import sacrebleu

from tests.helpers.evaluating import REFERENCES, WORSE, write
from tests.helpers.preparing import Run
from tests.helpers.toy import accept_changes


def test_a_run_is_scored_on_its_test_set(run: Run, model: Path) -> None:
    answer = run("evaluate", model, "--device", "cpu")
    assert answer.code == 0
    report = json.loads((model / "evaluation" / "report.json").read_text())
    hypotheses = (model / "evaluation" / "hypotheses.txt").read_text().split("\n")[:-1]
    references = (model / "test.trg.txt").read_text().split("\n")[:-1]
    assert report["segments"] == len(references) == len(hypotheses) == 12
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert report["scores"][0]["value"] == pytest.approx(bleu)
    interval = r" \[\d+\.\d\d, \d+\.\d\d\]  \(12 segments; nrefs:1\|bs:1000\|"
    assert re.match(rf"BLEU {bleu:.2f}{interval}", answer.out)
    assert "version:" + sacrebleu.__version__ in answer.out


def test_the_report_records_search_settings_and_checksums(run: Run, model: Path) -> None:
    run("evaluate", model, "--device", "cpu", "--beam", 2, "--length-penalty", 0.5)
    report = json.loads((model / "evaluation" / "report.json").read_text())
    assert report["search"]["beam"] == 2  # the run's setting is 3
    assert report["search"]["length_penalty"] == 0.5
    source = hashlib.sha256((model / "test.src.txt").read_bytes()).hexdigest()
    assert report["sha256"]["source"] == source
    assert set(report["sha256"]) == {"source", "reference", "hypotheses"}


def test_evaluating_again_gives_the_same_report(run: Run, model: Path) -> None:
    run("evaluate", model, "--device", "cpu")
    first = (model / "evaluation" / "report.json").read_bytes()
    run("evaluate", model, "--device", "cpu", "--batch-size", 1)
    assert (model / "evaluation" / "report.json").read_bytes() == first


def test_src_and_ref_replace_the_test_set_of_a_run(run: Run, model: Path, tmp_path: Path) -> None:
    src, ref = write(tmp_path / "a.zh", "我喜欢猫。"), write(tmp_path / "a.en", "I like cats.")
    out = tmp_path / "there"
    answer = run("evaluate", model, "--src", src, "--ref", ref, "--output", out, "--device", "cpu")
    assert answer.code == 0
    assert json.loads((out / "report.json").read_text())["segments"] == 1
    assert not (model / "evaluation").exists()


def test_src_needs_ref(run: Run, model: Path, tmp_path: Path) -> None:
    answer = run("evaluate", model, "--src", write(tmp_path / "a.zh", "我"))
    assert answer == (
        2, "", "error: --src and --ref go together: source lines and their references\n",
    )  # fmt: skip


def test_hypotheses_are_scored_without_a_model(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like cats.", "A dog.")
    answer = run("evaluate", hyp, "--ref", hyp, "--output", tmp_path / "out")
    assert answer.code == 0
    assert answer.out.startswith("BLEU 100.00")
    assert (tmp_path / "out" / "report.json").is_file()


def test_hypotheses_need_references(run: Run, tmp_path: Path) -> None:
    answer = run("evaluate", write(tmp_path / "hyp", "I like cats."))
    assert answer == (
        2, "", "error: hypotheses need --ref, the references to score against\n",
    )  # fmt: skip
    assert run("evaluate", tmp_path / "hyp") == (
        2, "", "error: hypotheses need --ref, the references to score against\n",
    )  # fmt: skip


def test_error_of_unequal_line_counts_names_both_files(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "one", "two", "three")
    ref = write(tmp_path / "ref", "one", "two")
    answer = run("evaluate", hyp, "--ref", ref)
    assert answer == (
        2,
        "",
        f"error: 3 lines in {hyp}, 2 in {ref}\nhint: the files must correspond line by line\n",
    )


@pytest.mark.parametrize("line", ["▁I ▁like ▁cats", "I li@@ ke cats", "I like ca@@"])
@pytest.mark.parametrize("side", ["hyp", "ref"])
def test_segmented_text_is_refused(run: Run, tmp_path: Path, line: str, side: str) -> None:
    files = {name: write(tmp_path / name, "A dog.", "I like cats.") for name in ("hyp", "ref")}
    write(files[side], "A dog.", line)
    answer = run("evaluate", files["hyp"], "--ref", files["ref"])
    assert answer == (
        2,
        "",
        f"error: {files[side]}:2: segmented into pieces ({line!r}), as 1 of 2 lines\n"
        "hint: join the pieces to plain text first; scores are computed on raw text only\n",
    )


def test_an_empty_file_is_refused(run: Run, tmp_path: Path) -> None:
    hyp, ref = write(tmp_path / "hyp"), write(tmp_path / "ref", "one")
    answer = run("evaluate", hyp, "--ref", ref)
    assert answer == (2, "", f"error: {hyp}: is empty, nothing to score\n")


def test_error_of_a_missing_file_suggests_a_similar_name(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "reference.en", "one")
    answer = run("evaluate", ref, "--ref", tmp_path / "referense.en")
    assert answer == (
        2,
        "",
        f"error: {tmp_path / 'referense.en'}: no such file\nhint: did you mean {ref}?\n",
    )


def test_missing_run_is_refused(run: Run, tmp_path: Path) -> None:
    answer = run("evaluate", tmp_path / "none")
    assert answer == (
        2,
        "",
        f"error: {tmp_path / 'none'}: no such run directory\n"
        "hint: nmt train makes one; see runs/\n",
    )


def test_evaluate_without_any_run_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("evaluate") == (
        2,
        "",
        "error: runs/: no finished run in it\n"
        "hint: train one with nmt train, or name one with --model\n",
    )


def test_incomplete_run_directory_is_refused(run: Run, model: Path) -> None:
    (model / "run.json").unlink()
    assert run("evaluate", model) == (
        2, "", f"error: {model}: not a run directory, or incomplete: run.json is missing\n",
    )  # fmt: skip


def test_damaged_run_json_is_refused(run: Run, model: Path) -> None:
    (model / "run.json").write_text("{")
    answer = run("evaluate", model)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {model / 'run.json'}: damaged (")


def test_run_of_a_newer_format_is_refused(run: Run, model: Path) -> None:
    info = json.loads((model / "run.json").read_text())
    (model / "run.json").write_text(json.dumps({**info, "format": 99}))
    answer = run("evaluate", model)
    assert answer.code == 2
    assert answer.err.startswith(
        f"error: {model / 'run.json'}: format 99, this program reads up to"
    )
    assert "hint: it was made by a newer nmt" in answer.err


def test_run_without_a_checkpoint_is_refused(run: Run, model: Path) -> None:
    shutil.rmtree(model / "checkpoints")
    assert run("evaluate", model, "--device", "cpu") == (
        2,
        "",
        f"error: {model}: no checkpoint yet\nhint: let nmt train run until its first save\n",
    )


def test_damaged_weights_are_refused(run: Run, model: Path) -> None:
    for path in model.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    answer = run("evaluate", model, "--device", "cpu")
    assert answer.code == 2
    assert "model.safetensors: damaged: its checksum differs from the one recorded" in answer.err


def test_tokenizer_of_another_run_is_refused(run: Run, model: Path) -> None:
    shutil.copyfile(model / "trg.model", model / "src.model")
    assert run("evaluate", model, "--device", "cpu") == (
        2,
        "",
        f"error: {model / 'src'}.model: damaged: its checksum differs from the one recorded; "
        f"not the tokenizer this run was trained with\n"
        "hint: put the original file back: weights and tokenizers belong together\n",
    )


def test_truncated_test_set_is_refused(run: Run, model: Path) -> None:
    lines = (model / "test.trg.txt").read_text().split("\n")
    (model / "test.trg.txt").write_text("\n".join(lines[:-2]) + "\n")
    answer = run("evaluate", model, "--device", "cpu")
    assert f"error: {model / 'test.trg.txt'}: damaged: its checksum differs" in answer.err
    accept_changes(model)
    answer = run("evaluate", model, "--device", "cpu")
    assert answer.code == 2
    assert answer.err.startswith("error: 12 lines in test.src.txt, 11 in test.trg.txt\n")


def test_absent_gpu_is_refused(run: Run, model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    answer = run("evaluate", model, "--device", "cuda")
    assert answer.code == 2
    assert "--device cuda: PyTorch" in answer.err


def test_swapped_sides_are_refused(run: Run, tmp_path: Path) -> None:
    zh, en = write(tmp_path / "zh", "我喜欢猫。"), write(tmp_path / "en", "I like cats.")
    assert run("evaluate", zh, "--ref", en) == (
        2,
        "",
        f"error: {zh}: is Chinese (4 of 4 letters), English is scored here\n"
        "hint: are the sides swapped? hypotheses and references are English\n",
    )
    answer = run("evaluate", en, "--ref", zh)
    assert answer.err.startswith(f"error: {zh}: is Chinese")


def test_source_that_is_not_chinese_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    en = write(tmp_path / "en", "I like cats.", "You like tea.")
    assert run("evaluate", model, "--src", en, "--ref", en) == (
        2,
        "",
        f"error: {en}: 0 of 2 lines contain a Chinese character: not a Chinese source\n"
        "hint: are --src and --ref swapped?\n",
    )


def test_chinese_split_into_words_is_refused(run: Run, model: Path, tmp_path: Path) -> None:
    zh = write(tmp_path / "zh", "好的。", "我们 喜欢 中国 音乐 和 北京 。")
    en = write(tmp_path / "en", "Fine.", "We like it.")
    answer = run("evaluate", model, "--src", zh, "--ref", en)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {zh}:2: Chinese words are separated by spaces (")
    assert "hint: use the raw text: the model has its own tokenizer" in answer.err


def test_corpus_segmented_before_prepare_is_refused(run: Run, model: Path) -> None:
    lines = (model / "test.trg.txt").read_text().splitlines()
    write(model / "test.trg.txt", *(f"▁{line}" for line in lines))
    accept_changes(model)
    answer = run("evaluate", model, "--device", "cpu")
    assert answer.code == 2
    assert answer.err.startswith("error: test.trg.txt:1: segmented into pieces (")


def test_one_line_of_a_test_set_may_contain_subword_marks(run: Run, model: Path) -> None:
    lines = (model / "test.trg.txt").read_text().splitlines()
    write(model / "test.trg.txt", "A diff starts with @@ and a number.", *lines[1:])
    accept_changes(model)
    assert run("evaluate", model, "--device", "cpu").code == 0


def test_one_line_of_many_references_may_contain_subword_marks(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", *REFERENCES, "A diff starts with @@ and a number.")
    assert run("evaluate", ref, "--ref", ref).code == 0


def test_scores_use_several_references(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like the small cats.")
    ref = write(tmp_path / "ref", "I love the little cats.")
    answer = run("evaluate", hyp, "--ref", ref, "--ref", hyp)
    assert answer.out.startswith("BLEU 100.00")
    assert "nrefs:2" in answer.out
    report = json.loads((tmp_path / "evaluation" / "report.json").read_text())
    assert set(report["sha256"]) == {"reference", "reference2", "hypotheses"}


def test_error_names_a_short_second_reference(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "one", "two")
    short = write(tmp_path / "short", "one")
    answer = run("evaluate", hyp, "--ref", hyp, "--ref", short)
    assert answer.err.startswith(f"error: 2 lines in {hyp}, 1 in {short}\n")


def test_blank_references_are_refused(run: Run, tmp_path: Path) -> None:
    ref, blank = (
        write(tmp_path / "ref", *REFERENCES),
        write(tmp_path / "blank", *[""] * len(REFERENCES)),
    )
    answer = run("evaluate", ref, "--ref", ref, "--ref", blank)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {blank}: every line is blank, nothing to score against\n"


def test_further_metrics_are_scored_in_order(run: Run, tmp_path: Path) -> None:
    hyp = write(tmp_path / "hyp", "I like cats.")
    answer = run("evaluate", hyp, "--ref", hyp, "--metric", "ter", "--metric", "chrF++")
    names = [line.split()[0] for line in answer.out.splitlines()]
    assert names == ["BLEU", "chrF2", "TER", "chrF2++"]
    assert run("evaluate", hyp, "--ref", hyp, "--metric", "meteor") == (
        2,
        "",
        "error: invalid value for '--metric': 'meteor' is not one of 'chrf++', 'ter'\n"
        "hint: nmt evaluate --help\n",
    )


def test_blank_lines_in_hypotheses_and_references_are_scored(run: Run, tmp_path: Path) -> None:
    ref = write(tmp_path / "ref", "I love China.", "")
    answer = run("evaluate", ref, "--ref", ref, "--metric", "ter", "--metric", "chrf++")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("BLEU 100.00 [")


def test_path_that_cannot_be_read_is_refused(run: Run, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    answer = run("evaluate", long, "--ref", write(tmp_path / "ref", *REFERENCES))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {long}: File name too long\n"


def test_run_scored_on_training_sentences_is_warned_about(
    run: Run, model: Path, toy_run: Path, tmp_path: Path
) -> None:
    assert "trained on" not in run("evaluate", model, "--device", "cpu").err
    held_out = (model / "dev.src.txt").read_text() + (model / "test.src.txt").read_text()
    corpus = (toy_run.parent / "toy.tsv").read_text().splitlines()
    trained = [line.split("\t")[0] for line in corpus if line.split("\t")[0] not in held_out][:3]
    src = write(tmp_path / "src", *trained, "从没见过的句子。")
    ref = write(tmp_path / "ref", *["I like cats."] * 4)
    answer = run("evaluate", model, "--src", src, "--ref", ref, "--device", "cpu")
    assert answer.code == 0
    warning = f"warning: {model}: trained on 3 of 4 source sentences (75.0%): its scores are too"
    assert warning in answer.err


def sgm(path: Path, kind: str, lines: list[str]) -> Path:
    """Write a WMT file of one document."""
    segments = (f'<seg id="{n}">{html.escape(line)}</seg>' for n, line in enumerate(lines, start=1))
    return write(path, f'<{kind} setid="t">', '<doc docid="a">', *segments, "</doc>", f"</{kind}>")


@pytest.mark.parametrize("suffix", ["sgm", "xml", "txt"])
def test_wmt_markup_has_the_scores_of_its_text(run: Run, tmp_path: Path, suffix: str) -> None:
    references = [*REFERENCES, 'He said "R&D" <today>']
    hypotheses = [*WORSE, 'He says "R&D" <today>']
    hyp, ref = write(tmp_path / "hyp", *hypotheses), write(tmp_path / "ref", *references)
    plain = run("evaluate", hyp, "--ref", ref)
    ref = sgm(tmp_path / f"ref.{suffix}", "refset", references)
    assert run("evaluate", hyp, "--ref", ref).out == plain.out
    hyp = sgm(tmp_path / f"hyp.{suffix}", "tstset", hypotheses)
    assert run("evaluate", hyp, "--ref", ref).out == plain.out
    bleu = sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert plain.out.startswith(f"BLEU {bleu:.2f} ")


def test_run_is_scored_on_wmt_markup(run: Run, model: Path, tmp_path: Path) -> None:
    sides = {s: (model / f"test.{s}.txt").read_text().splitlines() for s in ("src", "trg")}
    src = sgm(tmp_path / "src.sgm", "srcset", sides["src"])
    ref = sgm(tmp_path / "ref.sgm", "refset", sides["trg"])
    plain = run("evaluate", model, "--device", "cpu").out
    marked = run("evaluate", model, "--src", src, "--ref", ref, "--device", "cpu")
    assert marked.out == plain
