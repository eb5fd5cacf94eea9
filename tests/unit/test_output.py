"""Attention as a terminal grid, an HTML page, and an SVG."""

from __future__ import annotations

import base64
import re
import struct
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nmt.errors import NmtError
from nmt.translate.attention_map import AttentionMap
from nmt.translate.output import grid, text_width
from nmt.translate.types import Flag
from nmt.viz.html import AttentionPage
from nmt.viz.plots import attention_chart

LOVE = AttentionMap(
    list("我爱中国"),
    ["I", "love", "China"],
    np.array([[1, 0, 0, 0], [0.04, 0.9, 0.06, 0], [0, 0, 0.5, 0.5]], dtype=np.float32),
)
ODD = AttentionMap(
    list("<&\x00$_^"), ["<b>", "&amp;", "$x_1^2$"], np.full((3, 6), 1 / 6, np.float32)
)


def test_grid_shades_each_weight() -> None:
    assert grid(LOVE) == (
        "       我爱中国\n"
        "    I  ██\n"
        " love    ██░░\n"
        "China      ▓▓▓▓"
    )  # fmt: skip


def test_long_source_is_drawn_in_several_grids() -> None:
    blocks = grid(LOVE, columns=12).split("\n\n")
    assert [block.split("\n")[0].split() for block in blocks] == [["我爱中国"]]
    wide = AttentionMap(list("我爱中国") * 5, LOVE.words, np.tile(LOVE.weights, 5))
    blocks = grid(wide, columns=28).split("\n\n")
    assert len(blocks) == 2
    assert all(text_width(line) <= 28 for block in blocks for line in block.split("\n"))
    assert "".join(block.split("\n")[0].strip() for block in blocks) == "我爱中国" * 5


def test_text_width_counts_terminal_columns() -> None:
    assert text_width("ab") == 2
    assert text_width("中国，") == 6
    assert text_width("e\u0301") == 1


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.spans: dict[str, list[str]] = {"zh": [], "en": []}
        self.cells = 0
        self.side = ""
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.sources += [value for key, value in attrs if key in ("src", "href") and value]
        if tag == "div" and attributes.get("class") in ("zh", "en"):
            self.side = str(attributes["class"])
        if tag == "span":
            self.spans[self.side].append("")
        self.cells += tag == "td"
        self.stack.append(tag)

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "span":
            self.spans[self.side][-1] += data

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop() != tag:
            pass


def test_page_contains_all_characters_words_and_weights_without_external_files(
    tmp_path: Path,
) -> None:
    path = tmp_path / "attention.html"
    with AttentionPage.writing(path) as page:
        page.add(LOVE, [])
        page.add(ODD, [Flag("numbers", "in the source <1>; in the translation none")])
        page.add(AttentionMap([], [], np.zeros((0, 0), np.float32)), [])
    text = path.read_text(encoding="utf-8")
    reader = _Reader()
    reader.feed(text)
    assert reader.spans["zh"] == [*"我爱中国", "<", "&", "\xa0", "$", "_", "^"]
    assert reader.spans["en"] == ["I", "love", "China", "<b>", "&amp;", "$x_1^2$"]
    assert reader.cells == 3 * 4 + 3 * 6
    assert reader.sources == []
    assert "://" not in text
    assert text.count('<section class="attention">') == 2
    assert '<td style="--w:0.90" title="0.90">' in text
    assert "numbers: in the source &lt;1&gt;" in text
    for needed in ("prefers-color-scheme: dark", 'name="viewport"', 'lang="zh"', "pointerenter"):
        assert needed in text


def test_interrupted_page_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with AttentionPage.writing(tmp_path / "attention.html") as page:
            page.add(LOVE, [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_svg_keeps_its_text_and_is_reproducible() -> None:
    pytest.importorskip("matplotlib")
    svg = attention_chart([LOVE, ODD])
    assert svg == attention_chart([LOVE, ODD])
    document = xml.dom.minidom.parseString(svg)
    texts = [
        "".join(node.data for node in text.childNodes if node.nodeType == node.TEXT_NODE).strip()
        for text in document.getElementsByTagName("text")
    ]
    assert texts[:7] == ["我", "爱", "中", "国", "I", "love", "China"]
    assert "$x_1^2$" in texts
    assert "Noto Sans CJK SC" in svg.decode()


def test_svg_has_one_pixel_per_weight() -> None:
    pytest.importorskip("matplotlib")
    large = AttentionMap(["我"] * 120, ["I"] * 80, np.full((80, 120), 1 / 120, np.float32))
    (image,) = re.findall(r"base64,([^\"]+)\"", attention_chart([large]).decode())
    width, height = struct.unpack(">II", base64.b64decode(image)[16:24])  # PNG header
    assert (width, height) == (120, 80)


def test_svg_without_a_matrix_is_refused() -> None:
    with pytest.raises(NmtError, match="all lines are blank"):
        attention_chart([])
