"""Files that are not text, and encodings without a byte-order mark."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from nmt.config.sources import CsvSource, JsonlSource
from nmt.errors import NmtError
from nmt.io import read
from nmt.io.read import read_lines
from nmt.prepare.pair import Pair
from nmt.prepare.readers.lines import read_csv, read_jsonl
from nmt.prepare.readers.tmx import read_tmx


def fails(path: Path, encoding: str | None = "utf-8") -> NmtError:
    with pytest.raises(NmtError) as caught:
        list(read_lines(path, encoding))
    return caught.value


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_with_and_without_byte_order_mark(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("我爱中国\tI love China\n你好\tHello\n".encode(codec))
    assert list(read_lines(path, "utf-16")) == ["我爱中国\tI love China", "你好\tHello"]


def test_compressed_data_without_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(gzip.compress(b"x\ty\n"))
    error = fails(path)
    assert error.message == f"{path}: is gzip data without the suffix .gz"
    assert error.hint == f"mv {path} {path}.gz, and name that file"
    upper = tmp_path / "b.TSV.GZ"
    upper.write_bytes(gzip.compress(b"x\ty\n"))
    assert list(read_lines(upper)) == ["x\ty"]


def test_an_office_document(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", "y")
    assert fails(path).message == f"{path}: is a zip archive or an office document, not text"


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_git_lfs_pointer(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    error = fails(path)
    assert error.message == f"{path}: is a Git LFS pointer, not the file itself"
    assert error.hint == "git lfs pull"


@pytest.mark.parametrize("head", ['<srcset setid="x">', '<?xml version="1.0"?>', "<refset>"])
def test_markup_is_not_read_as_text(tmp_path: Path, head: str) -> None:
    path = tmp_path / "a.sgm"
    path.write_text(f'{head}\n<seg id="1">Hello.</seg>\n')
    assert fails(path, None).message == f"{path}: is SGML or XML markup, not one sentence a line"


def test_lines_that_end_in_cr_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a\tb\rc\td\re\tf\r")
    assert fails(path).message == f"{path}: its lines end in CR alone"


def test_cr_cr_lf_is_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a\tb\r\r\nc\td\r\r\n")
    assert list(read_lines(path)) == ["a\tb", "c\td"]


def test_the_length_of_a_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MAX_LINE", 1 << 20)
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"short\n" + b"x" * (2 << 20)))
    assert fails(path).message == f"{path}:2: line longer than 1 MB, not text"


def csv_pairs(path: Path, text: str, **keys: str) -> list[Pair]:
    path.write_text(text, encoding="utf-8")
    return list(read_csv(CsvSource.model_validate({"source": "csv", "path": path, **keys})))


@pytest.mark.parametrize("text", ["zh;en\n一;one\n", "sep=;\nzh;en\n一;one\n", "zh\ten\n一\tone\n"])
def test_the_delimiter_is_detected(tmp_path: Path, text: str) -> None:
    assert csv_pairs(tmp_path / "a.csv", text) == [Pair("一", "one")]


def test_an_unclosed_quote_is_reported_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with pytest.raises(NmtError) as caught:
        csv_pairs(path, 'zh,en\n一,one\n二,"two\n三,three\n四,four\n')
    assert caught.value.message.startswith(f"{path}:3: not CSV: a quote is not closed")


def test_flattened_keys_marks_and_line_ends_in_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '\ufeff{"t.zh": "一", "t.en": "one"}\n\ufeff{"t": {"zh": "二\\r\\n三", "en": "two"}}\n',
        encoding="utf-8",
    )
    source = JsonlSource.model_validate(
        {"source": "jsonl", "path": path, "src": "t.zh", "trg": "t.en"}
    )
    assert list(read_jsonl(source)) == [Pair("一", "one"), Pair("二\n三", "two")]


def test_line_ends_in_tmx(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(
        '<tmx><body><tu><tuv lang="zh"><seg>一&#13;&#10;二</seg></tuv>'
        '<tuv lang="en"><seg>one</seg></tuv></tu></body></tmx>',
        encoding="utf-8",
    )
    assert list(read_tmx(path)) == [Pair("一\n二", "one")]
