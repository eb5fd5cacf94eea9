"""``nmt translate`` end to end: input and output bytes, options, refused mistakes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch

import nmt
from nmt import Translator
from nmt.io.read import read_lines
from nmt.run.directory import Run, RunInfo
from nmt.run.records import dump_record, load_record
from nmt.translate import run as run_module
from nmt.translate import translator
from tests.helpers.command import Nmt
from tests.helpers.command import nmt as in_process
from tests.helpers.corpus import toy_pairs

SOURCES = [zh for zh, _ in toy_pairs()]
ODD = [
    "", " ", "\u3000", "\t", "\x00", "a\u2028b", "我\r爱", "👍🏽\u200d👧", "\ue000", "\U000e0fff",
    "only English", "12345", "。。。", "龘龘", "\x85\x0c", "e\u0301\u0301", "\u202e", "\ufffe",
]  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are killed after the tests."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "nmt", "translate", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parents[1]),
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_arguments_files_and_pipes_give_the_same(
    toy_run: Path, nmt_command: Nmt, tmp_path: Path
) -> None:
    lines = [*SOURCES[:5], "", "我爱中国。他们喜欢茶。"]
    arguments = in_process("translate", "--model", toy_run, *lines)
    assert arguments.code == 0
    assert arguments.out.count("\n") == len(lines)
    assert arguments.out.split("\n")[5] == ""
    data = "\n".join(lines).encode()
    assert nmt_command("translate", "--model", toy_run, stdin=data).out == arguments.out
    (tmp_path / "in.txt").write_bytes(data + b"\n")
    files = ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert in_process("translate", "--model", toy_run, *files).out == ""
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == arguments.out
    single = ("--batch-size", 1, "--input", tmp_path / "in.txt")
    assert in_process("translate", "--model", toy_run, *single).out == arguments.out
    python = Translator.load(toy_run, "cpu").translate(lines)
    assert [t.text for t in python] == arguments.out.split("\n")[:-1]


def test_trained_model_reproduces_its_training_pairs(toy_run: Path) -> None:
    translations = Translator.load(toy_run, "cpu").translate(SOURCES)
    right = sum(t.text == en for t, (_, en) in zip(translations, toy_pairs(), strict=True))
    assert right > 0.8 * len(SOURCES)


def test_translations_do_not_depend_on_batches_or_order(toy_run: Path) -> None:
    loaded = Translator.load(toy_run, "cpu")
    lines = SOURCES[::3] + ODD + ["".join(SOURCES[:30])]
    expected = [t.text for t in loaded.translate(lines)]
    for batch_size in (1, 7):
        assert [t.text for t in loaded.translate(lines, batch_size)] == expected
    order = np.random.default_rng(1).permutation(len(lines))
    shuffled = loaded.translate([lines[i] for i in order], 7)
    assert [t.text for t in shuffled] == [expected[i] for i in order]


def test_int8_gives_nearly_the_same_translations(toy_run: Path) -> None:
    plain = in_process("translate", "--model", toy_run, *SOURCES[:40]).out.split("\n")
    small = in_process("translate", "--model", toy_run, "--int8", *SOURCES[:40]).out.split("\n")
    assert sum(a == b for a, b in zip(plain, small, strict=True)) > 35


def test_every_option_reaches_the_search(toy_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, inference = translator.beam_search, translator.Inference
    calls: list[dict[str, Any]] = []
    eight_bit: list[bool] = []
    threads: list[int] = []

    def searching(members: Any, src: Any, mask: Any, **options: Any) -> Any:
        lengths = mask.sum(dim=1).tolist()
        assert options["max_lengths"].tolist() == [int(n * 0.5) + 10 for n in lengths]
        recorded = {key: value for key, value in options.items() if key != "max_lengths"}
        calls.append({**recorded, "rows": len(src)})
        return search(members, src, mask, **options)

    def preparing(model: Any, *, int8: bool) -> Any:
        eight_bit.append(int8)
        return inference(model, int8=int8)

    monkeypatch.setattr(translator, "beam_search", searching)
    monkeypatch.setattr(translator, "Inference", preparing)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    options = (
        "--beam", 4, "--length-penalty", 0.3, "--coverage-penalty", 0.1, "--no-repeat-ngram", 2,
        "--max-ratio", 0.5, "--n-best", 2, "--batch-size", 2, "--int8", "--threads", 3,
    )  # fmt: skip
    result = in_process("translate", "--model", toy_run, "--device", "cpu", *options, *SOURCES[:6])
    assert result.code == 0, result.err
    wanted = {"beam": 4, "alpha": 0.3, "beta": 0.1, "no_repeat": 2, "n_best": 2, "rows": 2}
    assert [{k: v for k, v in call.items() if k != "constraints"} for call in calls] == [wanted] * 3
    assert eight_bit == [True]
    assert 3 in threads


def test_ensemble_of_a_run_with_itself_equals_the_run(toy_run: Path) -> None:
    twice = ("--model", toy_run, "--model", toy_run)
    single = in_process("translate", "--model", toy_run, *SOURCES[:10])
    assert in_process("translate", *twice, *SOURCES[:10]).out == single.out


def test_ensemble_with_different_tokenizers_is_refused(toy_run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(toy_run, changed)
    shutil.copy(changed / "src.model", changed / "trg.model")
    info = load_record(changed / "run.json", RunInfo)
    files = {**info.files, "trg.model": info.files["src.model"]}
    (changed / "run.json").write_bytes(dump_record(info.model_copy(update={"files": files})))
    result = in_process("translate", "--model", toy_run, "--model", changed, "我")
    assert result.code == 2
    assert result.err.splitlines() == [
        f"error: {changed}: has other tokenizers than {toy_run}",
        "hint: an ensemble needs runs trained on one prepared corpus (data.dir)",
    ]


def test_json_has_all_keys_and_consistent_values(toy_run: Path) -> None:
    lines = ["我爱中国。", "", "他有30个苹果。", "　我愛　中國。"]
    result = in_process(
        "translate", "--model", toy_run, "--json", "--align", "soft", "--n-best", 2, *lines
    )
    records = [json.loads(line) for line in result.out.splitlines()]
    assert [r["source"] for r in records] == lines
    first, blank, numbers, wide = records
    assert set(first) == {
        "source", "translation", "score", "log_prob", "pieces", "alignment", "flags", "attention",
        "candidates",
    }  # fmt: skip
    assert first["translation"] == "I love China."
    assert first["flags"] == []
    assert "".join(first["pieces"]["target"]).replace("▁", " ").strip() == first["translation"]
    assert first["candidates"][0]["translation"] == first["translation"]
    assert first["candidates"][0]["score"] > first["candidates"][1]["score"]
    assert first["log_prob"] < 0
    assert {j for _, j in first["alignment"]} == {0, 1, 2}
    assert blank == {
        "source": "", "translation": "", "score": 0.0, "log_prob": 0,
        "pieces": {"source": [], "target": []}, "alignment": [], "flags": [],
        "attention": {"characters": [], "words": [], "weights": []}, "candidates": [],
    }  # fmt: skip
    assert "numbers" in [flag["name"] for flag in numbers["flags"]]
    assert wide["translation"] == first["translation"]
    assert wide["attention"]["characters"] == list("　我愛　中國。")
    weights = np.array(wide["attention"]["weights"])
    assert weights.shape == (3, 7)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-2)


def test_alignments_and_n_best_lists_in_text(toy_run: Path) -> None:
    links = in_process("translate", "--model", toy_run, "--align", "pharaoh", "我爱中国。", "").out
    text, pairs = links.split("\n")[0].split(" ||| ")
    assert text == "I love China."
    assert {pair.split("-")[1] for pair in pairs.split()} == {"0", "1", "2"}
    assert links.split("\n")[1] == " ||| "
    soft = in_process("translate", "--model", toy_run, "--align", "soft", "我爱中国。").out
    assert json.loads(soft.split(" ||| ")[1])["words"] == ["I", "love", "China."]
    best = in_process("translate", "--model", toy_run, "--n-best", 3, "我爱中国。", "", "他爱茶。")
    rows = [line.split(" ||| ") for line in best.out.splitlines()]
    assert [row[0] for row in rows] == ["0", "0", "0", "1", "2", "2", "2"]
    assert rows[0][1] == "I love China."
    assert float(rows[0][2]) > float(rows[1][2]) > float(rows[2][2])


def test_attention_is_printed_and_written(toy_run: Path, tmp_path: Path) -> None:
    page, svg = tmp_path / "attention.html", tmp_path / "attention.SVG"
    words = ("translate", "--model", toy_run, "--device", "cpu", "我爱中国。", "", "他爱茶。")
    result = in_process(*words, "--show-attention", "--attention", page)
    assert result.out == "I love China.\n\nHe loves tea.\n"
    assert "我爱中国。" in result.err
    assert "China." in result.err
    assert page.read_text(encoding="utf-8").count("<section") == 2
    pytest.importorskip("matplotlib")
    assert in_process(*words, "--attention", svg).out == result.out
    assert ">国<" in svg.read_text(encoding="utf-8").replace(" ", "").replace("\n", "")


def test_flags_are_listed_on_stderr(toy_run: Path) -> None:
    result = in_process(
        "translate", "--model", toy_run, "--quality-flags", "我爱中国。", "他有30个龘。"
    )
    assert result.out.count("\n") == 2
    notes = [line for line in result.err.splitlines() if line.startswith("flag: ")]
    assert notes[0].startswith("flag: line 2: ")
    assert any(": numbers: in the source 30; in the translation" in note for note in notes)


@pytest.mark.parametrize("option", ["--output", "--attention"])
def test_output_that_is_a_directory_is_refused(toy_run: Path, tmp_path: Path, option: str) -> None:
    folder = tmp_path / "folder.html"
    folder.mkdir()
    result = in_process("translate", "--model", toy_run, option, folder, "我爱中国。")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {folder}: is a directory, not a file")


def test_missing_input_is_refused_and_the_old_output_stays(toy_run: Path, tmp_path: Path) -> None:
    (tmp_path / "en").write_text("old")
    words = ("--input", tmp_path / "zn", "--output", tmp_path / "en")
    result = in_process("translate", "--model", toy_run, *words)
    assert result.code == 2
    assert result.err.startswith(f"error: {tmp_path / 'zn'}: no such file")
    assert (tmp_path / "en").read_text() == "old"


def test_output_may_be_an_open_descriptor(toy_run: Path, tmp_path: Path) -> None:
    words = f"'{sys.executable}' -m nmt translate --model '{toy_run}' --device cpu 我爱中国。"
    (tmp_path / "log").write_text("before\n")
    for line in (
        f"{words} --output /dev/stdout >> log",
        f"{words} --output >(cat > piped; touch done)",
        f"{words} --output /dev/stdout | cat > through",
    ):
        environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parents[1])}
        subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=True)
    for _ in range(100):
        if (tmp_path / "done").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "log").read_text() == "before\nI love China.\n"
    assert (tmp_path / "piped").read_text() == "I love China.\n"
    assert (tmp_path / "through").read_text() == "I love China.\n"


def test_output_that_would_overwrite_the_input_is_refused(toy_run: Path, tmp_path: Path) -> None:
    (tmp_path / "zh").write_text("我爱中国。\n", encoding="utf-8")
    (tmp_path / "link").symlink_to("zh")
    for output in ("zh", "link"):
        words = ("--input", tmp_path / "zh", "--output", tmp_path / output)
        result = in_process("translate", "--model", toy_run, *words)
        assert result.code == 2
        assert "output would overwrite an input" in result.err
    assert (tmp_path / "zh").read_text(encoding="utf-8") == "我爱中国。\n"


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_output_is_compressed_by_its_suffix(toy_run: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"en{suffix}"
    words = ("translate", "--model", toy_run, "我爱中国。", "", "--output", out)
    assert in_process(*words).code == 0
    assert list(read_lines(out)) == ["I love China.", ""]
    first = out.read_bytes()
    in_process(*words)
    assert out.read_bytes() == first


def test_unknown_attention_format_is_refused(toy_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "attention.png"
    result = in_process("translate", "--model", toy_run, "--attention", path, "我爱中国。")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: --attention {path}: unknown format .png\n"
        "hint: name a file that ends in .html or .svg\n"
    )


def test_dash_is_standard_output(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = start("--model", toy_run, "--output", "-", "我今天吃苹果。").communicate()
    assert out.count(b"\n") == 1
    assert not list(tmp_path.iterdir())


def test_closed_standard_streams_are_reported(toy_run: Path, tmp_path: Path) -> None:
    words = f"{sys.executable} -m nmt translate --model {toy_run}"
    for redirected, message in (("<&-", "input is closed"), ("我 >&-", "output is closed")):
        done = subprocess.run(
            ["bash", "-c", f"{words} {redirected}"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        assert done.returncode == 2
        assert f"error: standard {message}" in done.stderr
    out = subprocess.check_output(["bash", "-c", f"{words} 我今天吃苹果。 2>&-"], cwd=tmp_path)
    assert out.count(b"\n") == 1  # the message goes to stderr only


def test_translating_needs_no_dev_files(toy_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(toy_run, tmp_path / "run"))
    line = "".join(SOURCES[:60])
    command = ["translate", "--device", "cpu", line]
    expected = in_process(*command, "--model", toy_run).out
    for path in [*run.glob("dev.*.txt"), *run.glob("test.*.txt")]:
        path.unlink()
    assert in_process(*command, "--model", run).out == expected


def test_two_outputs_with_one_name_are_refused(toy_run: Path, tmp_path: Path) -> None:
    words = ("--attention", tmp_path / "x.html", "--output", tmp_path / "." / "x.html")
    result = in_process("translate", "--model", toy_run, *words, "我爱中国。")
    assert result.code == 2
    assert result.err.startswith("error: two outputs have the same path")


def test_output_through_links_and_pipes_keeps_them(toy_run: Path, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    words = ("translate", "--model", toy_run, "我爱中国。", "--output")
    assert in_process(*words, tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "old").read_text() == "I love China.\n"
    os.mkfifo(tmp_path / "pipe")
    received: list[str] = []
    reader = threading.Thread(
        target=lambda: received.append((tmp_path / "pipe").read_text()), daemon=True
    )
    reader.start()
    assert in_process(*words, tmp_path / "pipe").code == 0
    reader.join(timeout=60)
    assert received == ["I love China.\n"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_behind_stdout_is_reported(toy_run: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "nmt", "translate", "--model", str(toy_run), "我爱中国。"],
            stdout=full, stderr=subprocess.PIPE, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parents[1]),
                 "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
    assert process.returncode == 2
    assert process.stderr.decode().splitlines()[-2:] == [
        "error: standard output: cannot be written (No space left on device); earlier lines were "
        "written",
        "hint: --output FILE writes all lines or none",
    ]


def test_documented_files_of_a_run_are_enough_to_translate(toy_run: Path, tmp_path: Path) -> None:
    best = Path("checkpoints") / Run.open(toy_run).checkpoints.best().folder.name
    (tmp_path / "run" / best).mkdir(parents=True)
    for name in (
        "run.json", "config.yaml", "src.model", "trg.model",
        best / "model.safetensors", best / "state.json",
    ):  # fmt: skip
        shutil.copyfile(toy_run / name, tmp_path / "run" / name)
    result = in_process("translate", "--model", tmp_path / "run", "我爱中国。")
    assert (result.code, result.out) == (0, "I love China.\n")


def test_one_string_instead_of_lines_is_refused(toy_run: Path) -> None:
    with pytest.raises(nmt.NmtError, match="translate takes a list of lines, not one string"):
        Translator.load(toy_run, "cpu").translate("我爱中国。")


def test_pipe_is_read_once_with_a_progress_bar(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = types.SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(
        run_module, "sys", types.SimpleNamespace(stderr=terminal, stdin=terminal, stdout=sys.stdout)
    )
    os.mkfifo(tmp_path / "lines")
    writer = threading.Thread(
        target=lambda: (tmp_path / "lines").write_text("我爱中国。\n他爱茶。\n", encoding="utf-8"),
        daemon=True,
    )
    writer.start()
    words = ("--input", tmp_path / "lines", "--output", tmp_path / "en")
    assert in_process("translate", "--model", toy_run, *words).code == 0
    writer.join()
    assert (tmp_path / "en").read_text() == "I love China.\nHe loves tea.\n"


@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_truncated_archive_is_refused(toy_run: Path, tmp_path: Path, errors: str) -> None:
    whole = gzip.compress("".join(f"我爱中国{n}。\n" for n in range(5000)).encode())
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    words = ("--input", tmp_path / "cut.gz", "--encoding-errors", errors, "--beam", 1)
    result = in_process("translate", "--model", toy_run, *words, "--output", tmp_path / "en")
    assert result.code == 2
    assert "compressed data is damaged or cut off" in result.err
    assert not (tmp_path / "en").exists()


def test_line_longer_than_max_pieces_is_noted(toy_run: Path) -> None:
    translator = Translator.load(toy_run, "cpu")
    half = translator.max_pieces * 2 // 3
    lines = ["我爱中国" * half, "我" * half + "。" + "我" * half + "。"]
    for line in lines:
        result = in_process("translate", "--model", toy_run, "--beam", 1, line)
        assert "characters was translated in" in result.err


def test_sentences_of_a_line_are_translated_separately(toy_run: Path) -> None:
    loaded = Translator.load(toy_run, "cpu")
    assert loaded.usual is not None
    # Two of these sentences are longer than a typical line, so none are combined.
    sources = [zh for zh in SOURCES if 2 * len(loaded.src.encode(zh)) > loaded.usual.typical][:50]
    line = "".join(sources)
    assert len(loaded.src.encode(line)) > loaded.max_pieces
    result = in_process("translate", "--model", toy_run, "--device", "cpu", line, *sources)
    whole, *single = result.out.splitlines()
    assert whole == " ".join(single)
    assert result.err.splitlines() == [
        f"note: line 1 of {len(line)} characters was translated in {len(sources)} parts"
    ]
    two = in_process("translate", "--model", toy_run, "--device", "cpu", "".join(sources[:2]))
    assert two.out == f"{single[0]} {single[1]}\n"
    assert two.err == ""  # no note for a line that one search could take


def test_each_line_is_translated_as_soon_as_it_arrives(
    toy_run: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    process = start("--model", toy_run)
    running.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    answers: list[bytes] = []

    def read(stream: IO[bytes]) -> None:
        answers.append(stream.readline())

    for line in ("我爱中国。", "", "他爱茶。"):
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
        reader = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        reader.start()
        reader.join(timeout=120)
        assert not reader.is_alive(), "no answer"
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert answers == [b"I love China.\n", b"\n", b"He loves tea.\n"]


def test_unusual_lines_give_one_output_line_each(toy_run: Path, nmt_command: Nmt) -> None:
    rng = np.random.default_rng(5)
    ranges = [(0, 0x80), (0x4E00, 0x9FFF), (0x80, 0xD800), (0xE000, 0x10FFFF), (0x1F300, 0x1FAFF)]

    def line() -> str:
        kinds = rng.integers(0, len(ranges), size=rng.integers(0, 12))
        text = "".join(chr(rng.integers(*ranges[kind])) for kind in kinds)
        return text.replace("\n", " ")

    lines = [*ODD, *(line() for _ in range(300))] + [""] * 3000
    result = nmt_command(
        "translate",
        "--model",
        toy_run,
        "--beam",
        1,
        stdin="".join(f"{line}\n" for line in lines).encode(),
    )
    assert result.code == 0
    out = result.out.split("\n")
    assert len(out) == len(lines) + 1
    assert out[-3001:] == [""] * 3001
    for text in out:
        assert "▁" not in text
        assert "<unk>" not in text
        assert not any(unicodedata.category(c) in ("Zl", "Zp") for c in text)


def test_line_of_100000_characters_is_translated(toy_run: Path, nmt_command: Nmt) -> None:
    stdin = ("我爱" * 50_000 + "\n我爱中国。\n").encode()
    result = nmt_command("translate", "--model", toy_run, "--beam", 1, stdin=stdin)
    assert result.code == 0
    assert result.out.count("\n") == 2
    assert result.out.endswith("\nI love China.\n")


def test_line_too_long_for_a_matrix_has_links_only(toy_run: Path) -> None:
    line = "我爱中国。" * 900
    result = in_process(
        "translate", "--model", toy_run, "--device", "cpu", "--json", "--align", "soft", line, "我"
    )
    assert result.code == 0
    record, short = map(json.loads, result.out.splitlines())
    assert record["attention"] is None
    assert len(line) - 5 <= record["alignment"][-1][0] < len(line)  # of the last sentence
    assert record["alignment"][-1][1] == len(record["translation"].split()) - 1
    assert short["attention"]["characters"] == ["我"]
    assert "note: line 1: attention matrix omitted: line too long" in result.err.splitlines()


def test_closed_output_pipe_ends_without_a_message(
    toy_run: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    process = start("--model", toy_run, "--beam", 1, "--device", "cpu")
    running.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(("我爱中国。\n" * 3000).encode())
        process.stdin.close()
    assert process.wait(timeout=120) == 0
    assert process.stderr.read() == b""


def test_interrupt_exits_with_130_without_a_traceback(
    toy_run: Path, running: list[subprocess.Popen[bytes]]
) -> None:
    process = start("--model", toy_run, "--device", "cpu")
    running.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write("我爱中国。\n".encode())
    process.stdin.flush()
    assert process.stdout.readline() == b"I love China.\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() in (b"", b"interrupted\n")


def test_invalid_utf8_is_refused_or_replaced(
    toy_run: Path, nmt_command: Nmt, tmp_path: Path
) -> None:
    data = "我爱中国。\n".encode() + b"\xff\xfe\n" + "他爱茶。\n".encode()
    strict = nmt_command("translate", "--model", toy_run, stdin=data)
    assert strict.code == 2
    assert strict.out == "I love China.\n"
    assert "error: standard input:2: not valid UTF-8 (byte 1 of the line is 0xff)" in strict.err
    path = tmp_path / "in.txt"
    path.write_bytes(data)
    for options, stdin in ((("--input", path), b""), ((), data)):
        replaced = nmt_command(
            "translate", "--model", toy_run, "--encoding-errors", "replace", *options, stdin=stdin
        )
        assert replaced.code == 0
        assert replaced.out.count("\n") == 3
        assert replaced.out.startswith("I love China.\n")
        assert replaced.out.endswith("\nHe loves tea.\n")


def test_failed_command_leaves_the_old_output(toy_run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("我爱中国。\n".encode() + b"\xff\n")
    (tmp_path / "out.txt").write_text("old", encoding="utf-8")
    files = ("--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert in_process("translate", "--model", toy_run, *files).code == 2
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--input", "in.txt", "我"],
            ["error: both TEXT and --input were given", "hint: give one of them"],
        ),
        (
            ["--input", "on.txt"],
            ["error: on.txt: no such file", "hint: did you mean in.txt?"],
        ),
        (
            ["--n-best", "2", "--align", "soft", "我"],
            [
                "error: --n-best with --align needs --json",
                "hint: add --json, or leave one of them out",
            ],
        ),
        (
            ["--n-best", "9", "我"],
            [
                "error: n_best 9 is larger than the beam 3",
                "hint: use --beam 9",
            ],
        ),
        (
            ["--align", "giza", "我"],
            [
                "error: invalid value for '--align': 'giza' is not one of 'pharaoh', 'soft'",
                "hint: nmt translate --help",
            ],
        ),
        (
            ["--encoding-errors", "ignore", "我"],
            [
                "error: invalid value for '--encoding-errors': 'ignore' is not one of "
                "'strict', 'replace'",
                "hint: nmt translate --help",
            ],
        ),
        (
            ["--attention", "a.svg", ""],
            ["error: a.svg: no attention to draw: all lines are blank"],
        ),
        (
            ["--attention", "a.svg", *["我"] * 51],
            [
                "error: a.svg: an SVG holds at most 50 sentences",
                "hint: an HTML page holds any number: --attention attention.html",
            ],
        ),
        (
            ["--output", "in.txt/out.txt", "我"],
            ["error: in.txt/out.txt: cannot be written (Not a directory)"],
        ),
    ],
)
def test_mistakes_are_refused_with_a_message(
    toy_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    expected: list[str],
) -> None:
    (tmp_path / "in.txt").write_text("我爱中国。\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = in_process("translate", "--model", toy_run, "--device", "cpu", *options)
    assert result.code == 2
    assert result.err.splitlines() == expected


def test_missing_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_process("translate", "我").err.splitlines()[0] == (
        "error: runs/: no finished run in it"
    )
    result = in_process("translate", "--model", "nowhere", "我")
    assert result.code == 2
    assert result.err.splitlines()[0] == "error: nowhere: no such run directory"


def test_newest_finished_run_is_used_and_named(
    toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    for name in ("old", "new"):
        shutil.copytree(toy_run, Path("runs") / name)
    Run.open(Path("runs/new")).mark_finished()
    result = in_process("translate", "--device", "cpu", "我爱中国。")
    assert (result.code, result.out) == (0, "I love China.\n")
    bleu = Run.open(Path("runs/new")).checkpoints.best().dev_bleu
    assert result.err == (
        f"model: runs/new (dev BLEU {bleu:.1f}, finished less than a minute ago)\n"
    )
    assert in_process("evaluate", "--device", "cpu").code == 0
    assert Path("runs/new/evaluation/report.json").exists()


def test_library_prints_nothing(toy_run: Path) -> None:
    code = (
        "import sys, nmt\n"
        "assert nmt.__version__ and 'torch' not in sys.modules\n"
        "loaded = nmt.Translator.load(sys.argv[1], 'cpu')\n"
        "assert loaded.translate(['我爱中国。', ''])[1].text == ''\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(toy_run)],
        env={**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parents[1])},
        capture_output=True, check=True,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == (b"", b"")


def test_non_finite_weights_are_refused(toy_run: Path) -> None:
    loaded = Translator.load(toy_run, "cpu")
    loaded.model.decoder.output_bias.data.fill_(float("nan"))
    with pytest.raises(nmt.NmtError, match="NaN or infinite"):
        loaded.translate(["我爱中国。"])
    eight_bit = Translator.load(toy_run, "cpu", int8=True)
    eight_bit.model.encoder.embedding.weight.data[9, 0] = float("inf")
    with pytest.raises(nmt.NmtError, match="NaN or infinite"):
        eight_bit.translate(["我爱中国。"])
