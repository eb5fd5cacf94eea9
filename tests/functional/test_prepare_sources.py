"""Sources of `nmt prepare`: equal corpora from every format; weights, caps, leaks, workers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import pytest
import yaml

from nmt.data.tokenizer import Tokenizer
from nmt.prepare.readers.tmx import read_tmx
from tests.helpers.command import assert_refused
from tests.helpers.preparing import Run, manifest, sentences, snapshot, write_config, write_tsv

PACKED = ("train.src.ids.npy", "train.trg.ids.npy", "dev.src.txt", "test.trg.txt", "src.model")


def as_csv(pairs: list[tuple[str, str]]) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["id", "English, please", "中文"])
    rows.writerows([i, en, zh] for i, (zh, en) in enumerate(pairs))
    return out.getvalue().encode()


def as_named_tsv(pairs: list[tuple[str, str]]) -> bytes:
    lines = ["english\tnote\tchinese", *(f"{en}\t\t{zh}" for zh, en in pairs)]
    return "\n".join(lines).encode()


def as_jsonl(pairs: list[tuple[str, str]]) -> bytes:
    records = ({"translation": {"zh": zh, "en": en}, "id": 1} for zh, en in pairs)
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_tmx(pairs: list[tuple[str, str]]) -> bytes:
    units = (
        f'<tu tuid="{i}"><prop type="x">p</prop><tuv xml:lang="EN-us"><seg>{escape(en)}</seg></tuv>'
        f'<tuv xml:lang="zh_Hans"><seg>{escape(zh[0])}<ph>&lt;b&gt;</ph>{escape(zh[1:])}</seg>'
        f"</tuv></tu>\n"
        for i, (zh, en) in enumerate(pairs)
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'
    body = "".join(units)
    return f'{head}<tmx version="1.4"><header/><body>{body}</body></tmx>'.encode()


def as_po(pairs: list[tuple[str, str]]) -> bytes:
    head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    entries = (f'\nmsgid "{en}"\nmsgstr "{zh}"\n' for zh, en in pairs)
    return (head + "".join(entries)).encode()


def as_xliff(pairs: list[tuple[str, str]]) -> bytes:
    units = "".join(
        f'<trans-unit id="{i}"><source>{escape(en)}</source><target>{escape(zh)}</target>'
        "</trans-unit>"
        for i, (zh, en) in enumerate(pairs)
    )
    return (
        '<?xml version="1.0"?><xliff version="1.2" '
        'xmlns="urn:oasis:names:tc:xliff:document:1.2"><file original="a" datatype="plaintext" '
        f'source-language="en-GB" target-language="zh-CN"><body>{units}</body></file></xliff>'
    ).encode()


def as_xliff2(pairs: list[tuple[str, str]]) -> bytes:
    units = "".join(
        f'<unit id="u{i}"><segment><source>{escape(zh)}</source><target>{escape(en)}</target>'
        "</segment></unit>"
        for i, (zh, en) in enumerate(pairs)
    )
    return (
        '<?xml version="1.0"?><xliff version="2.0" srcLang="zh" trgLang="en" '
        f'xmlns="urn:oasis:names:tc:xliff:document:2.0"><file id="f">{units}</file></xliff>'
    ).encode()


@pytest.mark.parametrize(
    ("name", "write", "source"),
    [
        ("b.csv", as_csv, "{source: csv, path: b.csv, src: 中文, trg: 'English, please'}"),
        ("b.tsv", as_named_tsv, "{source: tsv, path: b.tsv, src: chinese, trg: english}"),
        (
            "b.jsonl",
            as_jsonl,
            "{source: jsonl, path: b.jsonl, src: translation.zh, trg: translation.en}",
        ),
        ("b.tmx", as_tmx, "{source: tmx, path: b.tmx}"),
        ("b.po", as_po, "{source: po, path: b.po}"),
        ("b.xlf", as_xliff, "{source: xliff, path: b.xlf}"),
        ("c.xlf", as_xliff2, "{source: xliff, path: c.xlf}"),
    ],
)
def test_every_format_gives_the_same_corpus(
    corpus: Run, name: str, write: Callable[[list[tuple[str, str]]], bytes], source: str
) -> None:
    if "po" in source or "xliff" in source:
        pytest.importorskip("translate.storage.po")
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    Path(name).write_bytes(write(sentences()))
    write_config(source)
    result = corpus("prepare", "--config", "c.yaml")
    assert result.code == 0, result.err
    assert manifest()["read"] == {name: 288}
    after = snapshot()
    for file in PACKED:
        assert after[file] == before[file], file


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-corpus.md"


def write_sgm(path: Path, kind: str, lines: Sequence[str]) -> None:
    """Write a WMT file of one document."""
    body = "".join(f'<seg id="{n}">{escape(line)}</seg>\n' for n, line in enumerate(lines, 1))
    path.write_text(f'<{kind} setid="a"><doc docid="a">\n{body}</doc></{kind}>\n', encoding="utf-8")


def test_the_documented_config_reads_every_format(run: Run) -> None:
    pytest.importorskip("translate.storage.po")
    block = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    tree = yaml.safe_load(block)
    pairs = sentences()
    table = "".join(f"{zh}\t{en}\n" for zh, en in pairs).encode()
    for stem in ("mine", "test"):
        for column, side in enumerate(("zh", "en")):
            lines = "".join(f"{pair[column]}\n" for pair in pairs)
            Path(f"{stem}.{side}").write_text(lines, encoding="utf-8")
    for side, lines in zip(("zh", "en"), zip(*pairs, strict=True), strict=True):
        write_sgm(Path(f"dev.{side}.sgm"), "srcset" if side == "zh" else "refset", lines)
    rows = [json.dumps({"text": {"zh": zh, "en": en}}) + "\n" for zh, en in pairs]
    files = {
        "mine.tsv.gz": gzip.compress(table),
        "export.csv": as_csv(pairs).replace(b'"English, please"', b"English"),
        "corpus.jsonl": "".join(rows).encode(),
        "office.tmx": as_tmx(pairs),
        "zh_CN.po": as_po(pairs),
        "app.xlf": as_xliff(pairs),
    }
    for name, content in files.items():
        Path(name).write_bytes(content)
    # The page holds out too many pairs for this corpus; its sources are used unchanged.
    tree["data"] |= {"dev": 10, "test": 20, "src_vocab": 400, "trg_vocab": 400}
    Path("mine.yaml").write_text(json.dumps(tree), encoding="utf-8")
    result = run("prepare", "--config", "mine.yaml")
    assert result.code == 0, result.err
    record = json.loads(Path("data/mine/manifest.json").read_text(encoding="utf-8"))
    assert record["read"] == dict.fromkeys(
        [*files, "mine.zh + mine.en", "dev.zh.sgm + dev.en.sgm"], 288
    )
    assert record["dropped"] == {"duplicate pair": 7 * 288}


@pytest.mark.parametrize("encoding", ["UTF-16", "GB2312", "gbk", "GB18030", "Big5"])
def test_tmx_in_its_declared_encoding(tmp_path: Path, encoding: str) -> None:
    pairs = [("我們在這里看書。", f"We read {n} books here.") for n in range(5000)]
    pairs = [(zh[: 1 + i % 8], en) for i, (zh, en) in enumerate(pairs)]
    text = as_tmx(pairs).decode().replace("UTF-8", encoding)
    assert encoding in text[:80]
    (tmp_path / "b.tmx").write_bytes(text.encode("gb18030" if encoding[0] in "Gg" else encoding))
    assert list(read_tmx(tmp_path / "b.tmx")) == pairs


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_encodings_of_text_sources(corpus: Run, encoding: str) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    text = Path("a.tsv").read_text(encoding="utf-8")
    Path("b.tsv").write_bytes(text.encode(encoding))
    write_config(f"{{source: tsv, path: b.tsv, encoding: {encoding}}}")
    assert corpus("prepare", "--config", "c.yaml").code == 0
    for file in PACKED:
        assert snapshot()[file] == before[file], file


def test_standard_input_is_read_every_time(corpus: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    write_config("{source: tsv, path: '-'}")
    for pairs in (sentences(), sentences()[:200]):
        data = "".join(f"{zh}\t{en}\n" for zh, en in pairs).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        assert corpus("prepare", "--config", "c.yaml").err.endswith("data/t: prepared\n")
        assert manifest()["read"] == {"standard input": len(pairs)}
        assert (snapshot()["test.src.txt"] == before["test.src.txt"]) == (len(pairs) == 288)


def test_standard_input_twice_is_refused(corpus: Run) -> None:
    write_config("{source: tsv, path: '-'}, {source: jsonl, path: '-'}")
    assert_refused(
        corpus("prepare", "--config", "c.yaml"),
        "c.yaml: data: only one source can be - (standard input)",
    )


@pytest.mark.parametrize(
    ("name", "content", "source", "message"),
    [
        (
            "b.csv", b"zh,english\n", "{source: csv, path: b.csv}",
            "b.csv:1: no column en; the first line names zh, english",
        ),
        (
            "b.csv", "zh,en\n一,one\n二\n".encode(), "{source: csv, path: b.csv}",
            "b.csv:3: 1 columns, 2 in the first line",
        ),
        (
            "b.csv", 'zh,en\n一,"one\n'.encode(), "{source: csv, path: b.csv}",
            "b.csv:2: not CSV: a quote is not closed (unexpected end of data)",
        ),
        (
            "b.jsonl", b'{"zh": 1, "en": "one"}\n', "{source: jsonl, path: b.jsonl}",
            "b.jsonl:1: zh is 1, not text",
        ),
        (
            "b.jsonl", b'{"en": "one"}\n', "{source: jsonl, path: b.jsonl}",
            "b.jsonl:1: no key zh; there is en",
        ),
        (
            "b.jsonl", b'\n{"en": \n', "{source: jsonl, path: b.jsonl}",
            "b.jsonl:2: not JSON: Expecting value: line 1 column 8 (char 7)",
        ),
        (
            "b.tmx", b"<tmx>\n<body>\n<tu></body>", "{source: tmx, path: b.tmx}",
            "b.tmx:3: not well-formed TMX (mismatched tag: line 3, column 6)",
        ),
        (
            "b.tmx", b'<?xml version="1.0" encoding="GBK"?>\n<tmx>\n\xce\xd2\xff</tmx>',
            "{source: tmx, path: b.tmx}",
            "b.tmx:3: not valid GB18030, which is declared in its first line",
        ),
        (
            "b.xlf",
            b'<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file '
            b'original="a" source-language="en" target-language="fr"><body/></file></xliff>',
            "{source: xliff, path: b.xlf}", "b.xlf: from en to fr, not English and Chinese",
        ),
        (
            "b.tsv", b"a\tb\n", "{source: tsv, path: b.tsv, src: a}",
            "c.yaml: source tsv: src and trg go together, both are column names",
        ),
    ],
)  # fmt: skip
def test_malformed_sources_are_refused(
    corpus: Run, name: str, content: bytes, source: str, message: str
) -> None:
    if "xliff" in source:
        pytest.importorskip("translate.storage.xliff")
    Path(name).write_bytes(content)
    write_config(source)
    result = corpus("prepare", "--config", "c.yaml")
    assert f"error: {message}\n" in result.err
    assert result.code == 2
    assert not Path("data/t").exists()


@pytest.mark.parametrize(("kind", "name"), [("po", "b.po"), ("xliff", "b.xlf")])
def test_malformed_catalogues_are_refused(corpus: Run, kind: str, name: str) -> None:
    pytest.importorskip("translate.storage.po")
    Path(name).write_bytes(b'msgid "a\nfoo')
    write_config(f"{{source: {kind}, path: {name}}}")
    result = corpus("prepare", "--config", "c.yaml")
    assert f"error: {name}: not readable as {kind} (" in result.err
    assert result.code == 2


@pytest.mark.parametrize(
    ("source", "module", "message", "extra"),
    [
        (
            "{source: po, path: a.tsv}", "translate.storage",
            "a.tsv: reading po needs the package translate-toolkit", "formats",
        ),
    ],
)  # fmt: skip
def test_a_missing_extra_is_refused(
    corpus: Run,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    module: str,
    message: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    write_config(source)
    assert_refused(
        corpus("prepare", "--config", "c.yaml"),
        message,
        f"pip install 'nmt-zh-en[{extra}]', or in a clone: pip install -e '.[{extra}]'",
    )


def test_units_with_a_missing_side_are_counted(corpus: Run) -> None:
    units = '<tu><tuv xml:lang="zh"><seg>只有中文</seg></tuv></tu><tu></tu>'
    good = as_tmx(sentences()).decode()
    Path("b.tmx").write_text(good.replace("<body>", "<body>" + units), encoding="utf-8")
    write_config("{source: tmx, path: b.tmx}")
    assert corpus("prepare", "--config", "c.yaml").code == 0
    record = manifest()
    assert record["read"] == {"b.tmx": 290}
    assert record["dropped"] == {"empty side": 2}
    assert sorted(record["examples"]["empty side"]) == [["", ""], ["只有中文", ""]]


def test_several_sources_with_weight_and_cap(corpus: Run) -> None:
    pairs = sentences()
    write_tsv(Path("a.tsv"), pairs[:100])
    write_tsv(Path("b.tsv"), pairs[100:200])
    write_tsv(Path("c.tsv"), pairs[200:])
    write_config(
        "{source: tsv, path: a.tsv, weight: 2.5}, {source: tsv, path: b.tsv, cap: 30}, "
        "{source: tsv, path: c.tsv, weight: 0.25}"
    )
    assert corpus("prepare", "--config", "c.yaml").code == 0
    record = manifest()
    assert record["read"] == {"a.tsv": 100, "b.tsv": 100, "c.tsv": 88}
    assert record["dropped"]["over the cap of its source"] == 70
    lost = record["dropped"]["left out by the weight of its source"]
    assert 40 < lost < 85  # three in four, without held-out pairs
    assert 100 < record["repeated"] < 200  # 1.5 times, without held-out pairs
    total = sum(record[name]["pairs"] for name in ("train", "dev", "test"))
    assert total == 288 + record["repeated"] - 70 - lost


def test_equal_bytes_for_any_number_of_workers(
    corpus: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nmt.prepare import chunks

    # Small chunks, so that every worker gets some. Dropped examples depend on the order, too.
    monkeypatch.setattr(chunks, "CHUNK", 17)
    monkeypatch.setattr(chunks.chunked, "__defaults__", (17,))
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"第{i}句\tno {i + 1}\n" for i in range(10, 60))
    snapshots = []
    for workers in ("1", "3"):
        folder = f"data/w{workers}"
        result = corpus(
            "prepare", "--config", "c.yaml", "--workers", workers, "--set", f"data.dir={folder}"
        )
        assert result.code == 0, result.err
        snapshots.append(snapshot(folder))
    assert snapshots[0] == snapshots[1]
    assert b"number mismatch" in snapshots[0]["manifest.json"]


def test_a_leak_is_refused_and_exclude_removes_it(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = snapshot()
    held = Path("data/t/test.src.txt").read_text(encoding="utf-8")
    Path("exam.txt").write_text(held, encoding="utf-8")
    # Held-out text is not in train.
    assert corpus("prepare", "--config", "c.yaml", "--check-leak", "exam.txt").code == 0
    zh, en = next(p for p in sentences() if p[0] not in held and p[0].startswith("我"))
    Path("exam.txt").write_text(f"昨天。\n{en.upper()}\n", encoding="utf-8")
    for arguments in ((), ("--set", "data.seed=1", "--set", "data.dir=data/u")):
        result = corpus("prepare", "--config", "c.yaml", "--check-leak", "exam.txt", *arguments)
        pairs = manifest()["train"]["pairs"]
        assert_refused(
            result,
            f"of {pairs} training pairs 1 share a sentence with exam.txt; for example {zh} | {en}",
            "list the file under data.exclude to remove such pairs",
        )
    assert snapshot() == before
    assert not Path("data/u").exists()
    kept_out = ("--set", "data.exclude=[exam.txt]")
    assert corpus("prepare", "--config", "c.yaml", "--check-leak", "exam.txt", *kept_out).code == 0
    assert manifest()["dropped"] == {"meets exam.txt": 1}


@pytest.mark.parametrize("option", ["--check-leak", "--set"])
def test_tables_without_tabs_are_refused_for_leak_checks(corpus: Run, option: str) -> None:
    Path("exam.csv").write_text("我爱中国。,I love China.\n", encoding="utf-8")
    value = "exam.csv" if option == "--check-leak" else "data.exclude=[exam.csv]"
    assert_refused(
        corpus("prepare", "--config", "c.yaml", option, value),
        "exam.csv: .csv is not supported here",
        "convert it to text with one sentence a line, or to a table with tabs",
    )


def test_untranslated_units_are_not_in_a_test_set(corpus: Run) -> None:
    pytest.importorskip("translate.storage.po")
    pairs = sentences()[:30]
    Path("t.po").write_bytes(as_po([*pairs, ("", "Not translated yet.")]))
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.test={source: po, path: t.po}")
    assert "data.test: 1 units without one side left out" in result.err
    assert len(Path("data/t/test.src.txt").read_text(encoding="utf-8").splitlines()) == 30
    assert manifest()["test"] == {"pairs": 30}


def test_leaks_in_any_column_and_script_are_removed(corpus: Run) -> None:
    english = sentences()[0][1].upper()
    Path("exam.tsv").write_text(f"7\t{english}\tnote\nx\t我昨天看見一狗。\n", encoding="utf-8")
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.exclude=[exam.tsv]")
    assert result.code == 0, result.err
    assert manifest()["dropped"] == {"meets exam.tsv": 2}


def test_final_punctuation_is_dropped_in_train_only(corpus: Run) -> None:
    from nmt.data.packed import PackedSet

    assert (
        corpus("prepare", "--config", "c.yaml", "--set", "data.drop_final_punctuation=1").code == 0
    )
    packed = PackedSet.open(Path("data/t"), "train")
    for side, has_mark in (("src", False), ("trg", True)):
        tokenizer = Tokenizer.load(Path(f"data/t/{side}.model"), simplify=side == "src")
        ids = getattr(packed, side)
        texts = [tokenizer.decode(ids[i].tolist()) for i in range(len(packed))]
        assert {text.endswith(("。", ".")) for text in texts} == {has_mark}
    held = Path("data/t/dev.src.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.endswith("。") for line in held)


def test_a_cap_on_a_test_set_is_refused(corpus: Run) -> None:
    assert_refused(
        corpus(
            "prepare", "--config", "c.yaml", "--set", "data.test={source: tsv, path: a.tsv, cap: 5}"
        ),
        "data.test: cap is not allowed, the set is used whole",
    )


def test_an_untranslated_test_set_is_refused(corpus: Run) -> None:
    pytest.importorskip("translate.storage.po")
    Path("t.po").write_bytes(as_po([("", "Not translated yet.")]))
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.test={source: po, path: t.po}"),
        "data.test: t.po has no pair with both sides",
    )


def test_a_missing_leak_file_is_refused(corpus: Run) -> None:
    result = corpus("prepare", "--config", "c.yaml", "--check-leak", "no.txt")
    assert result.code == 2
    assert "deciding" not in result.err  # refused before any work
    assert "error: no.txt: no such file" in result.err
    assert not Path("data/t").exists()


def test_packed_pieces_decode_to_the_text(corpus: Run) -> None:
    """Subword sampling in training re-segments the decoded text."""
    from nmt.data.packed import PackedSet

    assert corpus("prepare", "--config", "c.yaml").code == 0
    packed = PackedSet.open(Path("data/t"), "train")
    sides = []
    for side in ("src", "trg"):
        tokenizer = Tokenizer.load(Path(f"data/t/{side}.model"), simplify=side == "src")
        ids = getattr(packed, side)
        sides.append([tokenizer.decode(ids[i].tolist()) for i in range(len(packed))])
    held = {
        *snapshot()["dev.src.txt"].decode().split(),
        *snapshot()["test.src.txt"].decode().split(),
    }
    assert list(zip(*sides, strict=True)) == [
        (tokenizer.normalise(zh), tokenizer.normalise(en))
        for zh, en in sentences()
        if zh not in held
    ]


def test_sgm_source_gives_the_same_corpus_as_its_text(run: Run) -> None:
    pairs = sentences()
    for side, kind, lines in zip(
        ("zh", "en"), ("srcset", "refset"), zip(*pairs, strict=True), strict=True
    ):
        Path(f"a.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        write_sgm(Path(f"a.{side}.sgm"), kind, lines)
    corpora = []
    for source, suffix in (("parallel", ""), ("sgm", ".sgm")):
        write_config(f"{{source: {source}, src: a.zh{suffix}, trg: a.en{suffix}}}")
        result = run("prepare", "--config", "c.yaml")
        assert result.code == 0, result.err
        corpora.append(sorted((p.name, p.read_bytes()) for p in Path("data/t").glob("*.npy")))
    assert corpora[0] == corpora[1] != []


def test_sgm_sides_of_unequal_length_are_refused(run: Run) -> None:
    Path("a.zh.sgm").write_text("<srcset><seg>我</seg><seg>你</seg></srcset>\n", encoding="utf-8")
    Path("a.en.sgm").write_text("<refset><seg>I</seg></refset>\n", encoding="utf-8")
    write_config("{source: sgm, src: a.zh.sgm, trg: a.en.sgm}")
    result = run("prepare", "--config", "c.yaml")
    assert_refused(result, "2 segments in a.zh.sgm, 1 in a.en.sgm", "segments of the two files")
