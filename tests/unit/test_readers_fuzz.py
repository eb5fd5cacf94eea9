"""Readers against any bytes: they pair, or say what is wrong with file and line; they never crash.

And what goes in comes out: as many pairs read as kept and dropped.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from nmt.config.schema import CleanConfig
from nmt.config.sources import Source
from nmt.errors import NmtError
from nmt.prepare.chunks import chunked, clean_chunk, normalised_pair, raw_pair
from nmt.prepare.sources import Pair, read_pairs

ADAPTER: TypeAdapter[Source] = TypeAdapter(Source)
KINDS = ["tsv", "csv", "jsonl", "tmx", "po", "xliff"]
# Pieces of every format beside bytes at random, so that some files come nearly right.
FRAGMENTS = st.sampled_from(
    [
        b"\t", b"\n", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", "中文".encode(), b"English",
        "中".encode("gb18030"), "\u2028".encode(), b'"', b'""', b",", b"zh,en\n", b"zh\ten\n",
        b'{"zh": "a", "en": "b"}', b'{"zh": "\\ud800", "en": null}', b"{", b"[]", b'{"zh": {}}',
        b"<tmx><body>", b"<tu>", b'<tuv xml:lang="zh"><seg>', b"</seg></tuv>", b"</tu>",
        b"</body></tmx>", b"<?xml version='1.0' encoding='gbk'?>", b"&lt;", b"&x;", b"<!--",
        b'msgid "a"\n', b'msgstr "b"\n', b"#, fuzzy\n", b"#~ ",
        b'<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">',
        b'<file source-language="en" target-language="zh" original="a"><body>',
        b"<trans-unit id='1'><source>a</source>", b"</trans-unit>", b"</body></file></xliff>",
    ]
)  # fmt: skip
CONTENT = st.lists(FRAGMENTS | st.binary(max_size=6), max_size=14).map(b"".join)
unhurried = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(kind: str, path: Path) -> list[Pair]:
    return list(read_pairs(ADAPTER.validate_python({"source": kind, "path": path})))


@pytest.mark.parametrize("kind", KINDS)
@unhurried
@given(content=CONTENT, compressed=st.sampled_from(["", "whole", "cut", "not"]))
def test_any_bytes(tmp_path: Path, kind: str, content: bytes, compressed: str) -> None:
    if kind in ("po", "xliff"):
        pytest.importorskip("translate.storage.po")
    path = tmp_path / ("a.gz" if compressed else "a")
    if compressed in ("whole", "cut"):
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content[:-3] if compressed == "cut" else content)
    pairs, problem = [], ""
    try:
        pairs = read(kind, path)
    except NmtError as error:
        problem = error.message
    # The file, and the line where the format has lines.
    assert not problem or re.match(rf"{re.escape(str(path))}(:\d+)?: ", problem), problem
    assert all(isinstance(text, str) for pair in pairs for text in pair)
    cleaned = clean_chunk(CleanConfig(), True, 0.0, [tuple(pair) for pair in pairs])
    assert cleaned.read == len(pairs)


TEXT = st.text(max_size=12)


@unhurried
@given(st.lists(st.tuples(TEXT, TEXT)), st.integers(1, 5))
def test_as_many_in_as_kept_and_dropped(rows: list[tuple[str, str]], size: int) -> None:
    read, kept, dropped = 0, [], 0
    for chunk in chunked(rows, size):
        done = clean_chunk(CleanConfig(require_han=False, forbid_han=False), True, 0.0, chunk)
        read += done.read
        lines = done.lines.split(b"\n")[:-1]
        assert done.keys.shape == (4, len(lines))
        assert done.statistics.counts["pairs"] == len(lines)
        kept += lines
        dropped += done.drops.counts.total()
    assert read == len(rows) == len(kept) + dropped
    originals = iter(rows)
    for line in kept:  # each kept pair is one of those read, in their order, unchanged
        raw = raw_pair(line + b"\n")
        assert any(raw == row for row in originals)
        for text in normalised_pair(line):
            assert text == " ".join(text.split())


@unhurried
@given(st.lists(st.tuples(TEXT, TEXT)))
def test_jsonl_gives_back_what_json_wrote(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "a.jsonl"
    lines = (json.dumps({"zh": zh, "en": en}) + "\n" for zh, en in rows)
    path.write_text("".join(lines), encoding="utf-8")
    assert read("jsonl", path) == rows
