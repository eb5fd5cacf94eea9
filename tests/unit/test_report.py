"""The report: the same as pinned, closed in itself, nothing of the corpus can break it."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nmt.data.manifest import Manifest
from nmt.prepare.pair import Pair
from nmt.prepare.report import _histogram, summary, write_html
from nmt.prepare.statistics import MAX_LENGTH, Statistics

HOSTILE = "</details><script>alert(1)</script>\x07\u202e&\u2028"


def lengths(*values: int) -> list[int]:
    statistics = Statistics()
    statistics.count_lengths("x", values)
    return statistics.lengths["x"].tolist()


@pytest.fixture
def manifest() -> dict:
    sizes = {"pieces": 4000, "simplify": True, "sha256": "0" * 64}
    return {
        "format": 3, "config": {}, "program": "0.1", "python": "3.11",
        "sources": {f"{HOSTILE}.tsv": "ab" * 32},
        "read": {"a.tsv": 1000, f"{HOSTILE}.tsv": 234}, "repeated": 0,
        "train": {"pairs": 1000, "src_pieces": 9000, "trg_pieces": 8000},
        "dev": {"pairs": 10}, "test": {"pairs": 20},
        "dropped": {"number mismatch": 200, "empty side": 4},
        "examples": {"number mismatch": [["他有25本书" + HOSTILE, "x" * 900]], "empty side": []},
        "warnings": [f"look: {HOSTILE}"],
        "tokenizers": {"src": sizes, "trg": sizes},
        "statistics": {
            "counts": {
                "pairs": 1030, "simplified": 515, "mixed scripts": 1, "either script": 514,
                "full-width punctuation": 30, "half-width punctuation": 10,
                "Latin letters": 5, "source characters": 10000, "sources with Latin": 3,
            },
            "lengths": {
                name: lengths(1, 5, 5, 9, 900)
                for name in ("src characters", "trg characters", "src pieces", "trg pieces")
            },
            "unused_pieces": {"src": 3, "trg": 0},
            "byte_characters": {"src": [["龘", 2], [" ", 1], ["<", 1], ["\u200e", 1]], "trg": []},
            "byte_totals": {"src": [3, 4], "trg": [0, 0]},
            "pieces": {"src": [["的", 500], ["<", 3]], "trg": [["▁the", 400]]},
        },
    }  # fmt: skip


class Reader(HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.links += [v or "" for name, v in attrs if name in ("src", "href")]
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(manifest: dict, tmp_path: Path) -> None:
    write_html(tmp_path, Manifest.model_validate(manifest))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(re.sub(r"<(rect[^>]*)>", r"<\1>", page))
    assert reader.open == []
    assert reader.tags["script"] == 0
    assert reader.links == []
    assert "http" not in page.replace("http-equiv", "")
    assert "<code>U+0007</code><code>U+202E</code>" in page
    assert "width=device-width" in page
    assert "&lt;script&gt;" in page


def test_the_page_says_what_the_manifest_says(manifest: dict, tmp_path: Path) -> None:
    write_html(tmp_path, Manifest.model_validate(manifest))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "1,234",
        "16.5 %",
        "number mismatch",
        "200",
        "mean 84.0, median 5",
        "龘",
        "75.0 %",
    ):
        assert text in page, text
    assert "<li><code>U+200E</code> <small>1</small></li>" in page  # of those spelled in bytes
    assert "x" * 159 + "…" in page
    assert "x" * 160 not in page


def test_what_to_do_stands_beside_a_reason_that_has_a_name_of_its_own(
    manifest: dict, tmp_path: Path
) -> None:
    manifest["dropped"] = {"meets exam.txt": 5, "over 100 pieces": 4, "number mismatch": 2}
    manifest["dropped"] |= {"over the cap of its source": 3, "foreign script": 1}
    write_html(tmp_path, Manifest.model_validate(manifest))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for advice in ("this file of data.exclude", "data.clean.max_pieces", "Sampled at random"):
        assert page.count(advice) == 1, advice
    assert page.count("<details open>") == 4  # the first; a phone shows one at a time
    assert page.count("<details>") == 1


def test_the_table(manifest: dict) -> None:
    manifest["read"] = {"a.tsv": 1234}
    assert summary(Manifest.model_validate(manifest)) == (
        "read\n"
        "  a.tsv       1,234\n"
        "dropped, with an example\n"
        "  number mismatch        -200  "
        "他有25本书</details><script>alert… | xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\n"
        "  empty side               -4\n"
        "kept\n"
        "  train       1,000  9,000 + 8,000 pieces\n"
        "  dev            10\n"
        "  test           20\n"
        "vocabulary: 4,000 Chinese, 4,000 English\n"
        "Chinese: 50.0 % Simplified, 0 % Traditional, < 0.1 % mixed, 49.9 % the same in both"
    )


def test_a_histogram_loses_nobody() -> None:
    histogram = _histogram("x", lengths(*range(1, 100), *[5] * 20))
    assert 0.99 * 119 <= sum(count for _, count, _ in histogram.bars) <= 119
    assert max(height for _, _, height in histogram.bars) == 1
    assert _histogram("x", [0] * (MAX_LENGTH + 1)).bars == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("这是简体们", "simplified"),
        ("這是繁體們", "traditional"),
        ("这是繁體", "mixed scripts"),
        ("里后面干乾著", "either script"),  # in use in both
        ("人口", "either script"),
    ],
)
def test_scripts(text: str, kind: str) -> None:
    statistics = Statistics()
    statistics.count_pairs([Pair(text, "x")])
    names = ("simplified", "traditional", "mixed scripts", "either script")
    assert {name: statistics.counts[name] for name in names if statistics.counts[name]} == {kind: 1}


def test_parts_add_up_to_the_whole() -> None:
    pairs = [Pair(f"我有{'很' * i}多 APP，", "I have many." * i) for i in range(9)]
    whole, parts = Statistics(), Statistics()
    whole.count_pairs(pairs)
    for start in range(0, 9, 4):
        part = Statistics()
        part.count_pairs(pairs[start : start + 4])
        parts.add(part)
    assert whole.counts == parts.counts
    assert {k: v.tolist() for k, v in whole.lengths.items()} == {
        k: v.tolist() for k, v in parts.lengths.items()
    }
    assert whole.counts["full-width punctuation"] == 9
    assert whole.counts["Latin letters"] == 27
    assert whole.counts["sources with Latin"] == 9
