"""Segments of WMT and IWSLT files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt.data.parallel import read_references, read_texts
from nmt.errors import NmtError

WMT_SRC = """\
<srcset setid="test" srclang="any">
<doc sysid="ref" docid="a" genre="news" origlang="zh">
<p>
<seg id="1">我喜欢猫 &amp; 狗。</seg>
<seg id="2">价格 &lt; 5&#x5143;。</seg>
</p>
</doc>
<doc docid="b" sysid="ref"><hl><seg id="1">AT&T 公司
很大。</seg></hl>
<seg id=2></seg><seg id="3"/>
</doc>
</srcset>
"""
WMT_XML = """\
<?xml version='1.0' encoding='utf-8'?>
<dataset id="test">
  <doc origlang="zh" id="a">
    <src lang="zh"><p><seg id="1">我喜欢猫。</seg></p></src>
    <ref lang="en" translator="A"><p><seg id="1">I like cats.</seg></p></ref>
    <ref lang="en" translator="B"><p><seg id="1">I love cats.</seg></p></ref>
    <hyp system="x" lang="en"><p><seg id="1">Cats!</seg></p></hyp>
  </doc>
  <doc origlang="zh" id="b">
    <src lang="zh"><p><seg id="1">好。</seg></p></src>
    <ref lang="en" translator="A"><p><seg id="1">Good.</seg></p></ref>
    <ref lang="en" translator="B"><p><seg id="1">Fine.</seg></p></ref>
    <hyp system="x" lang="en"><p><seg id="1">OK.</seg></p></hyp>
  </doc>
</dataset>
"""
IWSLT = """\
<?xml version="1.0" encoding="UTF-8"?>
<mteval>
<refset setid="test" srclang="Chinese" trglang="English">
<doc docid="1" genre="lectures">
<url>http://localhost/1</url>
<title>A title</title>
<seg id="1"> I like cats. </seg>
<!-- <seg id="9">removed</seg> -->
<seg id="2">A dog &quot;barks&quot;.</seg>
</doc>
</refset>
</mteval>
"""
TAGS = "<url>http://localhost/1</url>\n<title>A title</title>\n I like cats. \nA dog barks.\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "a.sgm"
    path.write_text(text, encoding="utf-8")
    return path


def test_wmt_sgm_keeps_order_entities_and_blank_segments(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, WMT_SRC)) == [
        "我喜欢猫 & 狗。", "价格 < 5元。", "AT&T 公司 很大。", "", "",
    ]  # fmt: skip


def test_wmt_xml_has_texts_by_role_and_translator(tmp_path: Path) -> None:
    path = write(tmp_path, WMT_XML)
    assert read_texts(path, "src") == ["我喜欢猫。", "好。"]
    assert read_texts(path, "hyp") == ["Cats!", "OK."]
    assert read_references(path) == [["I like cats.", "Good."], ["I love cats.", "Fine."]]
    with pytest.raises(NmtError, match="contains 2 texts of the same documents"):
        read_texts(path, "ref")


def test_references_of_several_systems_in_one_sgm(tmp_path: Path) -> None:
    doc = '<DOC docid="{}" sysid="{}">\n<seg id=1> {} </seg>\n</DOC>\n'
    docs = [("a", "r1", "One."), ("b", "r1", "Two."), ("b", "r2", "2."), ("a", "r2", "1.")]
    path = write(tmp_path, f"<refset>\n{''.join(doc.format(*d) for d in docs)}</refset>\n")
    assert read_references(path) == [["One.", "Two."], ["1.", "2."]]


def test_document_name_that_occurs_twice_keeps_the_order(tmp_path: Path) -> None:
    doc = '<doc docid="{}">\n{}</doc>\n'
    docs = [("a", "<seg>1</seg>"), ("a", "<seg>2</seg><seg>3</seg>"), ("b", "<seg>4</seg>")]
    path = write(tmp_path, f"<srcset>{''.join(doc.format(*d) for d in docs)}</srcset>")
    assert read_references(path) == [["1", "2", "3", "4"]]


def test_iwslt_xml_and_train_tags(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, IWSLT), "ref") == ["I like cats.", 'A dog "barks".']
    assert read_texts(write(tmp_path, TAGS)) == ["I like cats.", "A dog barks."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<?xml version='1.0'?>\n<html><p>x</p></html>\n", "without <seg> elements"),
        ("<?xml version='1.0'?>\n<tmx><seg>x</seg></tmx>\n", "is a translation memory"),
        ("<srcset>\n<seg id=1>a\n<seg id=2>b</seg>\n</srcset>\n", "a.sgm:2: <seg> is not closed"),
    ],
)
def test_other_markup_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(NmtError, match=message):
        read_texts(write(tmp_path, text))


def test_text_with_a_tag_is_not_markup(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, "<b>bold</b>\n<document>\n")) == ["<b>bold</b>", "<document>"]
