"""`nmt init`: from a user's text to a configuration that prepare and train accept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from nmt.config.load import load_config
from tests.helpers.command import nmt
from tests.helpers.toy import pairs

PAIRS = pairs()


def table(delimiter: str, *header: str) -> str:
    text = io.StringIO()
    rows = [[str(number), en, zh] for number, (zh, en) in enumerate(PAIRS)]
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([[*header], *rows])
    return text.getvalue()


def tmx() -> str:
    units = "".join(
        f'<tu><tuv xml:lang="zh-CN"><seg>{zh}</seg></tuv>'
        f'<tuv xml:lang="en-US"><seg>{en}</seg></tuv></tu>'
        for zh, en in PAIRS
    )
    return f'<?xml version="1.0"?><tmx version="1.4"><header/><body>{units}</body></tmx>'


def jsonl() -> str:
    records = ({"id": "a1", "translation": {"zh": zh, "en": en}} for zh, en in PAIRS)
    return "".join(json.dumps(record) + "\n" for record in records)


FILES = {
    "memory.tmx": (tmx(), "tmx", {}),
    "two.tsv": ("".join(f"{zh}\t{en}\n" for zh, en in PAIRS), "tsv", {"src": None}),
    "named.tsv": (table("\t", "id", "english", "chinese"), "tsv",
                  {"src": "chinese", "trg": "english"}),
    "comma.csv": (table(",", "id", "English", "中文"), "csv", {"src": "中文", "trg": "English"}),
    "excel.csv": (table(";", "id", "en", "zh"), "csv", {"delimiter": ";", "src": "zh"}),
    "records.jsonl": (jsonl(), "jsonl", {"src": "translation.zh", "trg": "translation.en"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_detected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, kind, keys = FILES[name]
    Path(name).write_text(text, encoding="utf-8")
    result = nmt("init", name)
    assert result.code == 0, result.err
    assert f"{kind}, {len(PAIRS):,} pairs" in result.err
    (source,) = load_config(Path("mine.yaml")).data.sources
    assert source.source == kind
    assert {key: getattr(source, key) for key in keys} == keys


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5", "utf-16"])
def test_the_encoding_is_detected(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sentences = [
        "我們的中國是一個大的國家。" if encoding == "big5" else "我们的中国是一个大的国家。"
    ] * 9
    Path("a.zh").write_text("\n".join(sentences) + "\n", encoding=encoding)
    english = encoding if encoding == "utf-16" else "ascii"
    Path("a.en").write_text("Our China is a big country.\n" * 9, encoding=english)
    result = nmt("init", "a.en", "a.zh")
    assert result.code == 0, result.err
    (source,) = load_config(Path("mine.yaml")).data.sources
    assert (source.source, source.src, source.encoding) == ("parallel", Path("a.zh"), encoding)


def test_from_a_translation_memory_to_a_model_in_three_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("memory.tmx").write_text(tmx(), encoding="utf-8")
    short = ["--set", "train.max_updates=2", "--set", "model.decoder_hidden=16"]
    for arguments in (
        ["init", "memory.tmx"],
        ["prepare", "--config", "mine.yaml"],
        ["train", "--config", "mine.yaml", "--device", "cpu", *short],
    ):
        result = nmt(*arguments)
        assert result.code == 0, result.err
    assert nmt("translate", "--model", "runs/mine", "我今天吃苹果。").code == 0


def test_an_installed_recipe_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert nmt("init", "--recipe", "quickstart", "--output", "q.yaml").code == 0
    assert load_config(Path("q.yaml")).run == Path("runs/quickstart")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (None, [], "error: nmt init needs either TEXT or --recipe"),
        (None, ["missing.tsv"], "error: missing.tsv: no such file"),
        ("", ["a"], "error: a: is empty"),
        ("我爱中国。\n", ["a"], "hint: name both files of each pair"),
        ("[1]\n", ["a"], "hint: one object per line: jq -c '.[]' a"),
        ('{"x": 1}\n', ["a"], "error: a: no key with Chinese and one with English text"),
        ("12345\n", ["a"], "error: a: neither Chinese nor English text in a known format"),
        ("I am\t我是\nYou are\t你是\n", ["a"], "hint: add a first line: en\tzh"),
        ("我\tI\n", ["a", "--output", "a"], "error: a: exists"),
    ],
)
def test_mistakes_are_refused_with_a_hint(
    text: str | None,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("a").write_text(text, encoding="utf-8")
    result = nmt("init", *arguments)
    assert result.code == 2
    assert message in result.err
