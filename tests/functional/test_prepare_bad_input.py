"""Damaged input to `nmt prepare`: each kind has an error, and the old corpus stays."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.command import assert_refused
from tests.helpers.preparing import Run, manifest, sentences, snapshot, write_config, write_tsv


@pytest.fixture
def prepared(corpus: Run) -> Run:
    """A folder with a prepared corpus; tests may then damage `a.tsv`."""
    assert corpus("prepare", "--config", "c.yaml").code == 0
    return corpus


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as codec
    else:
        codec = pytest.importorskip("backports.zstd")
    return codec.compress(data)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd)],
)
def test_compressed_sources_whole_and_truncated(
    prepared: Run, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    name = f"b.tsv.{suffix}"
    before = snapshot()
    long = Path("a.tsv").read_bytes() * 50
    Path(name).write_bytes(compress(long)[:-12])
    chosen = ("--set", f"data.sources.0.path={name}")
    result = prepared("prepare", "--config", "c.yaml", *chosen)
    assert result.code == 2
    assert f"error: {name}:" in result.err
    assert "compressed data is damaged or cut off" in result.err
    assert snapshot() == before
    Path(name).write_bytes(b"no such compression\n")
    result = prepared("prepare", "--config", "c.yaml", *chosen)
    assert f"error: {name}: compressed data is damaged or cut off" in result.err
    Path(name).write_bytes(compress(Path("a.tsv").read_bytes()))
    assert prepared("prepare", "--config", "c.yaml", *chosen).code == 0
    assert snapshot()["train.src.ids.npy"] == before["train.src.ids.npy"]


def test_a_line_in_gb18030_is_refused_with_a_hint(prepared: Run) -> None:
    before = snapshot()
    with Path("a.tsv").open("ab") as file:
        file.write("我们在这里。\tWe are here.\n".encode("gb18030"))
    assert_refused(
        prepared("prepare", "--config", "c.yaml"),
        "a.tsv:289: not valid UTF-8 (byte 1 of the line is 0xce); it reads as GB18030: "
        "我们在这里。\tWe are here.",
        "set encoding: gb18030 under this source, or convert the file: "
        "iconv -f GB18030 -t UTF-8 IN > OUT",
    )
    assert snapshot() == before


@pytest.mark.parametrize(
    ("encoding", "name"), [("big5", "Big5"), ("utf-16", "UTF-16"), ("gb18030", "GB18030")]
)
def test_files_in_other_encodings_are_refused_with_a_hint(
    run: Run, encoding: str, name: str
) -> None:
    text = "".join(
        f"{zh}\t{en}\n" for zh, en in [("我們在這裡學中文。", "We learn."), *sentences()]
    )
    Path("a.tsv").write_bytes(text.replace("们", "們").encode(encoding, "replace"))
    write_config("{source: tsv, path: a.tsv}")
    result = run("prepare", "--config", "c.yaml")
    assert f"it reads as {name}: 我們在這裡學中文。" in result.err
    assert f"hint: set encoding: {name.lower()} under this source" in result.err
    assert result.code == 2


def test_a_wrong_encoding_key_is_refused(corpus: Run) -> None:
    with Path("a.tsv").open("ab") as file:
        file.write(b"\xff\xff\tbad\n")
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.sources.0.encoding=gb18030")
    assert "error: a.tsv:" in result.err
    assert "not valid GB18030" in result.err
    assert "it reads as UTF-8" in result.err or "a.tsv:289:" in result.err


def test_unusual_lines_are_kept_or_counted(prepared: Run) -> None:
    before = snapshot()
    rows = [f"{zh}\t{en}".encode() for zh, en in sentences()]
    odd = [
        "零字节\x00\tA NUL byte.".encode(),
        "行\u2028分隔\tA line\u2028separator.".encode(),
        ("长" * 1_000_000).encode() + b"\tlong",
        "私\ue000用\tPrivate.".encode(),
    ]
    rows[100:100] = odd
    Path("a.tsv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(rows) + b"\r\n")
    assert prepared("prepare", "--config", "c.yaml").code == 0
    record = manifest()
    assert record["read"] == {"a.tsv": 292}
    assert record["dropped"] == {"control characters": 2, "too long": 1}
    assert len(record["examples"]["too long"][0][0]) == 200
    kept = sum(record[name]["pairs"] for name in ("train", "dev", "test"))
    assert kept == 289  # U+2028 does not end a line
    texts = b"".join(snapshot()[f"{name}.src.txt"] for name in ("dev", "test"))
    assert b"\r" not in texts
    assert b"\xef\xbb\xbf" not in texts
    assert len(before["dev.src.txt"].splitlines()) == 10


def test_a_corpus_of_duplicates_is_refused(prepared: Run) -> None:
    before = snapshot()
    write_tsv(Path("a.tsv"), [sentences()[0]] * 500)
    assert_refused(
        prepared("prepare", "--config", "c.yaml"),
        "1 pairs after cleaning: too few to hold out 30 in groups that share no sentence "
        "with the rest",
        "lower data.dev and data.test, or set them to separate files",
    )
    assert snapshot() == before


@pytest.mark.parametrize("where", ["cleaning", "packing", "manifest"])
def test_a_full_disk_leaves_the_old_corpus(
    prepared: Run, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from nmt.data.packed import PackedWriter
    from nmt.prepare import decide, report

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target, name = {
        "cleaning": (decide.Decisions, "decide"),
        "packing": (PackedWriter, "add"),
        "manifest": (report, "write_html"),
    }[where]
    before = snapshot()
    monkeypatch.setattr(target, name, full)
    assert_refused(
        prepared("prepare", "--config", "c.yaml", "--set", "data.seed=5"),
        "data/t: the disk is full; nothing was left half-written",
        "free some space and run the same command again",
    )
    assert snapshot() == before
    assert [p.name for p in Path("data").iterdir()] == ["t"]


def test_an_interrupt_leaves_the_old_corpus(prepared: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from nmt.prepare import holdout

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = snapshot()
    monkeypatch.setattr(holdout, "find_groups", interrupt)
    assert prepared("prepare", "--config", "c.yaml", "--set", "data.seed=5").code == 130
    assert snapshot() == before
    assert [p.name for p in Path("data").iterdir()] == ["t"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to a process group")
@pytest.mark.usefixtures("prepared")
def test_ctrl_c_ends_all_processes_without_leftovers() -> None:
    before = snapshot()
    write_config("{source: tsv, path: '-'}")
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt", "prepare", "--config", "c.yaml", "--workers", "2"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert process.stdin is not None
    # More than the read-ahead, so that the workers run; the input stays open.
    lines = "".join(f"{zh}\t{en}\n" for zh, en in sentences()).encode()
    process.stdin.write(lines * 150)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    kept = None
    while time.monotonic() < deadline and not (kept and kept.stat().st_size):
        kept = next(Path("data").glob(".t.*/kept.tmp"), None)
        time.sleep(0.05)
    assert kept is not None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err
    assert snapshot() == before
    assert [p.name for p in Path("data").iterdir()] == ["t"]


def test_each_cleaning_rule_has_a_switch(corpus: Run) -> None:
    bad = {
        "control characters": ("坏\x07字", "Bad bell.", "control=false"),
        "identical sides": ("三 a", "三 a", "identical=false"),
        "too short": ("短", "Short.", None),
        "too long": ("长" * 401, "L" * 1200, "max_chars=2000"),
        "length ratio": ("比例" * 40, "Off.", "max_ratio=null"),
        "no Chinese in source": ("abc", "Nothing.", "require_han=false"),
        "Chinese in target": ("汉字", "The 字 sign.", "forbid_han=false"),
        "foreign script": ("日本のことば", "Japanese.", "max_foreign=null"),
        "repeated run": ("哈" * 30 + "笑", "Ha " * 5 + "laughs a lot.", "max_repeats=null"),
        "markup": ("<b>粗</b>体", "Bold.", "markup=keep"),
        "number mismatch": ("他有25本书", "He has 26 books.", "numbers=false"),
    }
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"{zh}\t{en}\n" for zh, en, _ in bad.values())
    minimum = ("--set", "data.clean.min_chars=2", "--set", "data.clean.max_pieces=3000")
    assert corpus("prepare", "--config", "c.yaml", *minimum).code == 0
    record = manifest()
    assert record["dropped"] == dict.fromkeys(bad, 1)
    assert {reason: pairs[0][1] for reason, pairs in record["examples"].items()} == {
        reason: en[:200] for reason, (_, en, _) in bad.items()
    }
    # Identical Chinese sides also violate the rule for Chinese in the target.
    switches = [f"data.clean.{switch}" for _, _, switch in bad.values() if switch]
    off = [part for switch in switches for part in ("--set", switch)]
    result = corpus("prepare", "--config", "c.yaml", "--set", "data.clean.max_pieces=3000", *off)
    assert result.code == 0, result.err
    assert manifest()["dropped"] == {}


def test_near_duplicates_and_repeated_targets_are_dropped(corpus: Run) -> None:
    zh, en = sentences()[0]
    extra = [(zh, en), (zh.replace("。", "！"), en.upper())]
    extra += [(f"{zh[:-1]}{mark}页", "Go to page") for mark in "甲乙丙丁"]
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"{a}\t{b}\n" for a, b in extra)
    limit = ("--set", "data.clean.max_sources_per_target=3")
    assert corpus("prepare", "--config", "c.yaml", *limit).code == 0
    assert manifest()["dropped"] == {
        "one target for over 3 sources": 4,
        "duplicate pair": 1,
        "near-duplicate pair": 1,
    }
    off = [f"data.clean.{key}" for key in ("duplicates=false", "near_duplicates=false")]
    arguments = [part for key in off for part in ("--set", key)]
    none = ("--set", "data.clean.max_sources_per_target=null")
    assert corpus("prepare", "--config", "c.yaml", *none, *arguments).code == 0
    assert manifest()["dropped"] == {}


def test_pairs_of_too_many_or_too_few_pieces_are_dropped_and_counted(corpus: Run) -> None:
    from nmt.data.packed import PackedSet

    def lengths() -> NDArray[np.int64]:
        packed = PackedSet.open(Path("data/t"), "train")
        return np.stack([packed.src.lengths, packed.trg.lengths])

    both = zip(sentences()[:40], sentences()[100:140], strict=True)
    longer = [(f"{a[:-1]}，{c}", f"{b[:-1]}, {d}") for (a, b), (c, d) in both]
    write_tsv(Path("a.tsv"), [*sentences(), *longer])
    assert corpus("prepare", "--config", "c.yaml").code == 0
    before = lengths()
    maximum, minimum = int(before.max()) - 1, int(before.min(axis=0).max())
    for key, reason, bad in (
        (f"max_pieces={maximum}", f"over {maximum} pieces", (before > maximum).any(axis=0)),
        (f"min_pieces={minimum}", f"under {minimum} pieces", (before < minimum).any(axis=0)),
    ):
        assert corpus("prepare", "--config", "c.yaml", "--set", f"data.clean.{key}").code == 0
        assert manifest()["dropped"] == {reason: int(bad.sum())}
        np.testing.assert_array_equal(lengths(), before[:, ~bad])


def test_a_corpus_of_long_pairs_is_refused(corpus: Run) -> None:
    assert_refused(
        corpus("prepare", "--config", "c.yaml", "--set", "data.clean.max_pieces=2"),
        "no training pair has 1 to 2 pieces on both sides",
        "raise data.clean.max_pieces",
    )
