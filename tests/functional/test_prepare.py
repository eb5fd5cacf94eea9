"""`nmt prepare` on the command line: its output, and the error of every user mistake."""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.command import assert_refused
from tests.helpers.preparing import Run, manifest, sentences, snapshot, write_config, write_tsv


def test_a_packed_corpus_is_written_and_reported(corpus: Run) -> None:
    result = corpus("prepare", "--config", "c.yaml")
    assert result.code == 0, result.err
    assert result.out == ""  # stdout is for results
    record = manifest()
    assert record["read"] == {"a.tsv": 288}
    assert sum(record[name]["pairs"] for name in ("train", "dev", "test")) == 288
    assert (record["dev"]["pairs"], record["test"]["pairs"]) == (10, 20)
    assert "  a.tsv         288" in result.err
    assert "data/t: prepared" in result.err


def test_held_out_text_is_raw_and_shares_no_sentence_with_the_rest(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    all_pairs = set(sentences())
    for name, count in (("dev", 10), ("test", 20)):
        sides = [
            Path(f"data/t/{name}.{side}.txt").read_text(encoding="utf-8").splitlines()
            for side in ("src", "trg")
        ]
        assert len(sides[0]) == count
        assert set(zip(*sides, strict=True)) <= all_pairs


def test_an_unchanged_corpus_is_not_prepared_again(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    again = corpus("prepare", "--config", "c.yaml")
    assert again.err.endswith("data/t: unchanged, nothing to do\n")
    assert snapshot() == before
    changed = corpus("prepare", "--config", "c.yaml", "--set", "data.seed=2")
    assert changed.err.endswith("data/t: prepared\n")
    assert snapshot()["dev.src.txt"] != before["dev.src.txt"]


def test_equal_input_gives_equal_bytes(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    moved = corpus("prepare", "--config", "c.yaml", "--set", "data.dir=data/u")
    assert moved.code == 0
    assert snapshot("data/u") == before


def test_a_damaged_corpus_is_prepared_again(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    Path("data/t/dev.src.txt").write_text("x\n", encoding="utf-8")
    assert corpus("prepare", "--config", "c.yaml").err.endswith("data/t: prepared\n")
    assert snapshot() == before


def test_a_missing_corpus_suggests_a_similar_name(corpus: Run) -> None:
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.path=b.tsv")
    assert_refused(result, "b.tsv: no such file", "did you mean a.tsv?")


def test_a_folder_as_corpus_is_refused(corpus: Run) -> None:
    Path("folder").mkdir()
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.path=folder")
    assert_refused(result, "folder: is a directory, not a file")


def test_a_missing_configuration_is_refused(run: Run) -> None:
    assert_refused(
        run("prepare", "--config", "no.yaml"),
        "no.yaml: no such configuration file",
        "nmt init TEXT writes a configuration for your text",
    )


def test_unknown_key_gets_a_suggestion(corpus: Run) -> None:
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.clean.max_char=9"),
        "c.yaml: unknown key data.clean.max_char",
        "did you mean max_chars?",
    )


def test_unknown_source_gets_a_suggestion(corpus: Run) -> None:
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.source=tsw")
    assert_refused(result, "c.yaml: data.sources.0: unknown source 'tsw'", "did you mean tsv?")


def test_unequal_line_counts_give_both_numbers(run: Run) -> None:
    pairs = sentences()
    Path("a.zh").write_text("".join(a + "\n" for a, _ in pairs), encoding="utf-8")
    Path("a.en").write_text("".join(b + "\n" for _, b in pairs[:-3]), encoding="utf-8")
    write_config("{source: parallel, src: a.zh, trg: a.en}")
    assert_refused(
        run("prepare", "--config", "c.yaml"),
        "288 lines in a.zh, 285 in a.en: the shorter one ends before line 286",
        "the two files must correspond line by line",
    )


def test_parallel_files_give_the_same_corpus_as_a_table(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    pairs = sentences()
    Path("a.zh").write_text("".join(a + "\n" for a, _ in pairs), encoding="utf-8")
    Path("a.en").write_text("".join(b + "\n" for _, b in pairs), encoding="utf-8")
    write_config("{source: parallel, src: a.zh, trg: a.en}")
    assert corpus("prepare", "--config", "c.yaml").code == 0
    after = snapshot()
    for name in before:
        if name not in ("manifest.json", "report.html"):
            assert after[name] == before[name], name


def test_invalid_utf8_is_refused_with_file_and_line(corpus: Run) -> None:
    with Path("a.tsv").open("ab") as file:
        file.write("\xe9t\xe9\tsummer\n".encode("latin-1"))
    result = corpus("prepare", "--config", "c.yaml")
    first = result.err.splitlines()[-2]
    assert first.startswith("error: a.tsv:289: not valid UTF-8 (byte 1 of the line is 0xe9)")
    assert result.code == 2


def test_truncated_compression_is_refused(corpus: Run) -> None:
    whole = gzip.compress(Path("a.tsv").read_bytes(), mtime=0)
    Path("a.tsv.gz").write_bytes(whole[: len(whole) // 2])
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.path=a.tsv.gz")
    assert result.code == 2
    assert "error: a.tsv.gz:" in result.err
    assert "compressed data is damaged or cut off" in result.err
    assert not Path("data/t").exists()


def test_uncompressed_data_with_a_suffix_is_refused(corpus: Run) -> None:
    Path("a.tsv").rename("a.tsv.gz")
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.path=a.tsv.gz")
    assert result.code == 2
    assert "error: a.tsv.gz:" in result.err


@pytest.mark.parametrize(
    ("line", "columns", "hint"),
    [
        ("只有中文", 1, "a tab stands between the sides; for commas, source: csv"),
        (
            "一\tone\tuno",
            3,
            "replace a tab inside a sentence by a space; of a table with more columns, name two "
            "with src and trg",
        ),
    ],
)
def test_other_numbers_of_columns_are_refused(
    corpus: Run, line: str, columns: int, hint: str
) -> None:
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert_refused(
        corpus("prepare", "--config", "c.yaml"),
        f"a.tsv:289: {columns} columns, 2 are needed (Chinese, tab, English)",
        hint,
    )


def test_a_corpus_without_pairs_after_cleaning_is_refused(run: Run) -> None:
    write_tsv(Path("a.tsv"), [("Nothing at all.", b) for _, b in sentences()])
    write_config("{source: tsv, path: a.tsv}")
    assert_refused(
        run("prepare", "--config", "c.yaml"),
        "no pair is left of 288 after cleaning (288 no Chinese in source)",
        "check that the Chinese side comes first; the rules are keys of data.clean",
    )


def test_an_empty_file_is_refused(run: Run) -> None:
    Path("a.tsv").touch()
    write_config("{source: tsv, path: a.tsv}")
    assert_refused(
        run("prepare", "--config", "c.yaml"),
        "no pair is left of 0 after cleaning (no lines)",
        "check that the Chinese side comes first; the rules are keys of data.clean",
    )


def test_too_few_pairs_to_hold_out_are_refused(run: Run) -> None:
    write_tsv(Path("a.tsv"), sentences()[:25])
    write_config("{source: tsv, path: a.tsv}")
    assert_refused(
        run("prepare", "--config", "c.yaml"),
        "25 pairs after cleaning: too few to hold out 30 in groups that share no sentence "
        "with the rest",
        "lower data.dev and data.test, or set them to separate files",
    )


def test_a_vocabulary_too_small_for_the_characters_is_refused(corpus: Run) -> None:
    rare = [(f"他写了一个{chr(0x4E00 + 7 * i)}字{i}。", f"He wrote sign {i}.") for i in range(300)]
    write_tsv(Path("a.tsv"), rare)
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.src_vocab=300")
    assert result.code == 2
    assert "error: data.src_vocab: 300 pieces, but the characters of the corpus" in result.err
    assert "hint: set data.src_vocab to at least " in result.err


def test_a_missing_sample_package_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hsk_sentences_audio", None)
    write_config("{source: hsk}")
    assert_refused(
        run("prepare", "--config", "c.yaml"),
        "source hsk: the package hsk-sentences-audio is not installed",
        "pip install 'nmt-zh-en[sample]', or in a clone: pip install -e '.[sample]'",
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("key", ["data.sources.0.path=pipe", "data.exclude=[pipe]"])
def test_a_pipe_is_refused(corpus: Run, key: str) -> None:
    os.mkfifo("pipe")  # as is <(zcat a.gz) in a shell
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", key),
        "pipe: is a pipe, which can be read only once; a file is needed",
        "for one source, path: - reads what is piped into the command",
    )


def test_a_file_as_output_folder_is_refused(corpus: Run) -> None:
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.dir=a.tsv"),
        "a.tsv: is a file, data.dir names a folder",
    )
    assert Path("a.tsv").is_file()


def test_folders_not_created_by_prepare_are_not_replaced(corpus: Run) -> None:
    Path("data/t").mkdir(parents=True)
    Path("data/t/thesis.doc").write_text("mine", encoding="utf-8")
    assert_refused(
        corpus("prepare", "--config", "c.yaml"),
        "data/t: exists and was not created by nmt prepare; refusing to replace it",
        "name another folder in data.dir, or move this one away",
    )
    assert Path("data/t/thesis.doc").read_text(encoding="utf-8") == "mine"


def test_other_files_in_a_corpus_folder_are_not_removed(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    Path("data/t/thesis.doc").write_text("mine", encoding="utf-8")
    assert corpus("prepare", "--config", "c.yaml").code == 0  # nothing to do
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.seed=2"),
        "data/t: contains thesis.doc, which nmt prepare did not write; "
        "refusing to replace the folder",
        "name another folder in data.dir, or move thesis.doc elsewhere",
    )
    assert Path("data/t/thesis.doc").read_text(encoding="utf-8") == "mine"


def test_the_old_corpus_stays_after_an_error(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.write("only one column\n")
    assert corpus("prepare", "--config", "c.yaml").code == 2
    assert snapshot() == before
    assert [p.name for p in Path("data").iterdir()] == ["t"]  # no temporary folder


def test_dev_and_test_files_are_used_unchanged(run: Run) -> None:
    pairs = sentences()
    write_tsv(Path("a.tsv"), pairs)
    dev = [pairs[5], ("２０ 个苹果！", "Twenty apples!"), pairs[5]]
    write_tsv(Path("d.tsv"), dev)
    write_config("{source: tsv, path: a.tsv}")
    held = [f"data.{name}={{source: tsv, path: d.tsv}}" for name in ("dev", "test")]
    result = run("prepare", "--config", "c.yaml", "--set", held[0], "--set", held[1])
    assert result.code == 0, result.err
    lines = Path("data/t/dev.src.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [a for a, _ in dev]  # repeated lines and full-width digits included
    assert manifest()["dropped"] == {"meets dev or test": 1}


def test_a_test_file_with_all_training_text_is_refused(corpus: Run) -> None:
    held = [f"data.{name}={{source: tsv, path: a.tsv}}" for name in ("dev", "test")]
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", held[0], "--set", held[1]),
        "every training pair shares a sentence with dev or test",
        "data.dev and data.test must be other text than data.sources",
    )


def test_holding_out_all_pairs_is_refused(corpus: Run) -> None:
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.test=278"),
        "no pair is left to train on: every pair is in dev or test or shares a sentence with them "
        "or with data.exclude",
        "lower data.dev and data.test, or add text to data.sources",
    )
