"""The command `nmt align`: links, scores, and the message of every mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nmt.align.aligner import Aligner
from nmt.run.directory import Run
from tests.helpers.command import nmt


@pytest.fixture
def run(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained run that a test may change."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(toy_run, tmp_path / "run"))


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_the_aligner_is_learned_once_from_the_corpus_of_the_run(run: Path, tmp_path: Path) -> None:
    src = write(tmp_path / "src", "我们 喜欢 音乐", "", "他 爱 茶 。")
    trg = write(tmp_path / "trg", "We like music", "", "")
    command = ["align", "--model", run, "--src", src, "--trg", trg]
    first = nmt(*command)
    links, *rest = first.out.split("\n")
    # The tokenizer may have one piece for the first two words, so their links vary.
    assert {"1-1", "2-2"} <= set(links.split()), links
    assert (first.code, rest) == (0, ["", "", ""])
    assert "word alignment learned from the training pairs" in first.err
    assert nmt(*command) == (0, first.out, "")
    assert Aligner.load(run / "aligner.safetensors").jumps is not None


def test_without_aligner_and_corpus(run: Path, tmp_path: Path) -> None:
    opened = Run.open(run)
    moved = Path(shutil.copytree(opened.config.data.dir, tmp_path / "corpus"))
    data = opened.config.data.model_copy(update={"dir": moved})
    opened.replace_config(opened.config.model_copy(update={"data": data}))
    src, trg = write(tmp_path / "src", "我们"), write(tmp_path / "trg", "We")
    command = ["align", "--model", run, "--src", src, "--trg", trg]
    hint = f"hint: run nmt prepare --config {run / 'config.yaml'}, or name another --model\n"
    manifest = moved / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert nmt(*command) == (
        2,
        "",
        f"error: {run / 'aligner.safetensors'}: missing, and {moved} is not the corpus that this "
        f"run was trained on\n{hint}",
    )
    shutil.rmtree(moved)
    assert nmt(*command) == (
        2,
        "",
        f"error: {run / 'aligner.safetensors'}: missing, and {moved}, the corpus to learn it "
        f"from, does not exist\n{hint}",
    )


def test_links_can_count_from_one_and_go_to_a_file(run: Path, tmp_path: Path) -> None:
    src, trg = write(tmp_path / "zh", "我们 喜欢 音乐"), write(tmp_path / "en", "We like music")
    command = ["align", "--model", run, "--src", src, "--trg", trg]
    links = [map(int, link.split("-")) for link in nmt(*command).out.split()]
    one_based = " ".join(f"{i + 1}-{j + 1}" for i, j in links) + "\n"
    assert nmt(*command, "--one-based", "--output", "-").out == one_based
    assert nmt(*command, "--one-based", "--output", "links")[:2] == (0, "")
    assert Path("links").read_text() == one_based


def test_links_are_scored_against_gold(run: Path, tmp_path: Path) -> None:
    src = write(tmp_path / "src", "我们 喜欢 音乐", "")
    trg = write(tmp_path / "trg", "We like music", "")
    command = ["align", "--model", run, "--src", src, "--trg", trg]
    links = nmt(*command).out
    gold = write(tmp_path / "gold", links.replace("1-1", "1-1-P").removesuffix("\n"))
    command += ["--gold", gold]
    count = len(links.split())
    score = f"AER 0.00  precision 100.00  recall 100.00  (2 sentences, {count} links)\n"
    assert nmt(*command).out == score
    assert nmt(*command, "--output", "links").out == score
    assert Path("links").read_text() == links


def test_links_of_another_aligner_are_scored(tmp_path: Path) -> None:
    gold = write(tmp_path / "gold", "0-0 1-1-P", "0-0")
    links = write(tmp_path / "links", "0-0 1-1", "0-1")
    answer = nmt("align", "--gold", gold, "--links", links)
    assert answer.out == "AER 40.00  precision 66.67  recall 50.00  (2 sentences, 3 links)\n"


def test_gold_links_out_of_range(run: Path, tmp_path: Path) -> None:
    src, trg = write(tmp_path / "src", "我们 喜欢 音乐"), write(tmp_path / "trg", "We like music")
    gold = write(tmp_path / "gold", "1-1 2-2 3-3")
    assert nmt("align", "--model", run, "--gold", gold, "--src", src, "--trg", trg) == (
        2,
        "",
        f"error: {gold}:1: link 3-3 (zero-based), but there are 3 source and 3 target tokens\n"
        "hint: source comes first; if the file counts from 1, add --one-based\n",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nmt align needs --src and --trg, both in tokens separated by spaces"),
        (["--src", "{zh}"], "nmt align needs --src and --trg, both in tokens separated by spaces"),
        (["--gold", "{gold}"], "nmt align needs --src and --trg, both in tokens"),
        (["--links", "{gold}"], "--links needs --gold, the links to score against"),
        (["--gold", "{gold}", "--links", "{gold}", "--model", "a"],
         "--links cannot be combined with --model: no links are computed"),
        (["--gold", "{gold}", "--links", "{gold}", "--output", "a"],
         "--links cannot be combined with --output: no links are computed"),
        (["--src", "{zh}", "--trg", "{two}"], "1 lines in {zh}, 2 in {two}"),
        (["--gold", "{two}", "--links", "{gold}"], "{two}:1: 'a' is not a link"),
        (["--gold", "{gold}", "--src", "{zh2}", "--trg", "{two}"], "1 lines in {gold}, 2 in {zh2}"),
        (["--src", "{en}", "--trg", "{zh}"],
         "{en}: 0 of 1 lines contain a Chinese character: not a Chinese source\n"
         "hint: are --src and --trg swapped?"),
        (["--src", "{zh}", "--trg", "{en}", "--output", "{zh}"],
         "{zh}: output would overwrite an input"),
        (["--src", "{zh}", "--trg", "{en}", "--model", "absent"],
         "absent: no such run directory"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, options: list[str], message: str) -> None:
    files = {
        "gold": write(tmp_path / "gold", "0-0"),
        "two": write(tmp_path / "two", "a", "b"),
        "zh": write(tmp_path / "zh", "我们 喜欢 音乐"),
        "zh2": write(tmp_path / "zh2", "我们", "喜欢"),
        "en": write(tmp_path / "en", "We like music"),
    }
    answer = nmt("align", *(option.format(**files) for option in options))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: " + message.format(**files))
