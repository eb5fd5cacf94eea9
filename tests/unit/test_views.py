"""Attention made visible: in a terminal, as a page, as a picture."""

from __future__ import annotations

import base64
import builtins
import re
import struct
import xml.dom.minidom
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nmt.errors import NmtError
from nmt.translate.attention_map import AttentionMap
from nmt.translate.types import Flag
from nmt.translate.views import grid, text_width
from nmt.viz.html import AttentionPage

LOVE = AttentionMap(
    list("我爱中国"),
    ["I", "love", "China"],
    np.array([[1, 0, 0, 0], [0.04, 0.9, 0.06, 0], [0, 0, 0.5, 0.5]], dtype=np.float32),
)
ODD = AttentionMap(
    list("<&\x00$_^"), ["<b>", "&amp;", "$x_1^2$"], np.full((3, 6), 1 / 6, np.float32)
)


def test_grid() -> None:
    assert grid(LOVE) == (
        "       我爱中国\n"
        "    I  ██\n"
        " love    ██░░\n"
        "China      ▓▓▓▓"
    )  # fmt: skip


def test_a_long_source_is_drawn_in_several_grids() -> None:
    blocks = grid(LOVE, columns=12).split("\n\n")
    assert [block.split("\n")[0].split() for block in blocks] == [["我爱中国"]]
    wide = AttentionMap(list("我爱中国") * 5, LOVE.words, np.tile(LOVE.weights, 5))
    blocks = grid(wide, columns=28).split("\n\n")
    assert len(blocks) == 2
    assert all(text_width(line) <= 28 for block in blocks for line in block.split("\n"))
    assert "".join(block.split("\n")[0].strip() for block in blocks) == "我爱中国" * 5


def test_width_of_text_in_a_terminal() -> None:
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
        given = dict(attrs)
        self.sources += [value for key, value in attrs if key in ("src", "href") and value]
        if tag == "div" and given.get("class") in ("zh", "en"):
            self.side = str(given["class"])
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


def test_the_page_holds_every_character_word_and_weight_and_nothing_from_outside(
    tmp_path: Path,
) -> None:
    path = tmp_path / "look.html"
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


def test_a_page_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with AttentionPage.writing(tmp_path / "look.html") as page:
            page.add(LOVE, [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_svg_keeps_its_text_and_is_the_same_each_time(tmp_path: Path) -> None:
    plots = pytest.importorskip("nmt.translate.plots")
    pytest.importorskip("matplotlib")
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    for path in (one, two):
        plots.draw([LOVE, ODD], path, "svg")
    assert one.read_bytes() == two.read_bytes()
    document = xml.dom.minidom.parse(str(one))
    texts = ["".join(n.data for n in t.childNodes if n.nodeType == n.TEXT_NODE) for t in
             document.getElementsByTagName("text")]  # fmt: skip
    assert [t.strip() for t in texts[:7]] == ["我", "爱", "中", "国", "I", "love", "China"]
    assert "$x_1^2$" in texts
    assert "Noto Sans CJK SC" in one.read_text(encoding="utf-8")


def test_a_large_svg_holds_a_pixel_for_a_weight(tmp_path: Path) -> None:
    plots = pytest.importorskip("nmt.translate.plots")
    large = AttentionMap(["我"] * 120, ["I"] * 80, np.full((80, 120), 1 / 120, np.float32))
    plots.draw([large], tmp_path / "large.svg", "svg")
    text = (tmp_path / "large.svg").read_text(encoding="utf-8")
    (image,) = re.findall(r"base64,([^\"]+)\"", text)
    width, height = struct.unpack(">II", base64.b64decode(image)[16:24])  # of a PNG's head
    assert (width, height) == (120, 80)


def test_a_png_has_a_largest_size(tmp_path: Path) -> None:
    plots = pytest.importorskip("nmt.translate.plots")
    wide = AttentionMap(["我"] * 2000, ["I"], np.ones((1, 2000), np.float32) / 2000)
    with pytest.raises(NmtError, match="2,000 characters by 1 words are too many for pixels"):
        plots.draw([wide], tmp_path / "wide.png", "png")
    assert not list(tmp_path.iterdir())


def test_a_png_needs_a_chinese_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plots = pytest.importorskip("nmt.translate.plots")
    font_manager = pytest.importorskip("matplotlib.font_manager")
    path = tmp_path / "look.png"
    here = [f for f in font_manager.fontManager.ttflist if f.name not in plots._CHINESE]
    known = len(font_manager.fontManager.ttflist)
    if len(here) < known:
        plots.draw([LOVE], path, "png")
        assert path.read_bytes().startswith(b"\x89PNG")
    # Not in matplotlib's list, as after installing one: the disk is looked at.
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*here])
    if len(here) < known:
        plots.draw([LOVE], path, "png")
        assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", here)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["no font.ttf"])
    with pytest.raises(NmtError) as caught:
        plots.draw([LOVE], path, "png")
    assert caught.value.message == (
        f"{path}: no font with Chinese characters is installed, a PNG needs one"
    )
    assert "fonts-noto-cjk" in str(caught.value.hint)


def test_drawing_without_matplotlib_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nmt.translate import plots

    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NmtError, match=re.escape("drawing needs matplotlib")) as caught:
        plots.draw([LOVE], tmp_path / "a.svg", "svg")
    assert caught.value.hint == 'pip install "nmt-zh-en[plots]"'


def test_nothing_to_draw(tmp_path: Path) -> None:
    from nmt.translate import plots

    with pytest.raises(NmtError, match="all lines are blank"):
        plots.draw([], tmp_path / "a.svg", "svg")
