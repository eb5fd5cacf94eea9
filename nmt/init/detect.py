"""Detect the format, columns and encoding of parallel text."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nmt.config.sources import (
    CsvSource,
    JsonlSource,
    ParallelSource,
    PoSource,
    Source,
    TmxSource,
    TsvSource,
    XliffSource,
)
from nmt.errors import NmtError
from nmt.io.read import open_bytes
from nmt.text.normalise import HAN

_SAMPLE_BYTES = 1 << 17
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_XLIFF = (".xlf", ".xliff", ".sdlxliff", ".mxliff")
_COLUMN_NAMES = {"中文", "汉语", "漢語", "简体中文", "繁體中文", "原文", "译文", "譯文", "源文"}
# Characters that are frequent in one script; a wrong legacy decoding has few of them.
_FREQUENT = set("的一是不了在人有我他这个们中来上大为和国这說國個來為這們時會")


def detect_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the sources for some files; two files with one side each are one source.

    Raises:
        NmtError: a file that is missing or whose format is not recognised.
    """
    sources: list[Source] = []
    sides: dict[str, list[tuple[Path, str]]] = {"zh": [], "en": []}
    for path in paths:
        detected = _detect(path)
        if isinstance(detected, tuple):
            side, encoding = detected
            sides[side].append((path, encoding))
        else:
            sources.append(detected)
    if len(sides["zh"]) != len(sides["en"]):
        listed = {side: ", ".join(str(path) for path, _ in files) for side, files in sides.items()}
        raise NmtError(
            f"files with one language each: Chinese {listed['zh'] or '(none)'}, "
            f"English {listed['en'] or '(none)'}",
            "name both files of each pair: nmt init text.zh text.en",
        )
    for (src, encoding), (trg, trg_encoding) in zip(sides["zh"], sides["en"], strict=True):
        # English text is often plain ASCII, which every encoding includes.
        encoding = trg_encoding if encoding == "utf-8" and trg_encoding != "utf-8" else encoding
        sources.append(
            ParallelSource.model_validate(
                {"source": "parallel", "src": src, "trg": trg, "encoding": encoding}
            )
        )
    return sources


def _detect(path: Path) -> Source | tuple[str, str]:
    """Return the source of a file, or the language and encoding of a file with one side."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    with open_bytes(path) as file:
        data = file.read(_SAMPLE_BYTES)
    if not data.strip():
        raise NmtError(f"{path}: is empty")
    encoding, text = _decode(path, data)
    if suffix == ".tmx" or "<tmx" in text[:2000]:
        return TmxSource(source="tmx", path=path)
    if suffix in _XLIFF or "<xliff" in text[:2000]:
        return XliffSource(source="xliff", path=path)
    if suffix in (".po", ".pot"):
        return PoSource(source="po", path=path)
    lines = text.splitlines()
    if len(data) == _SAMPLE_BYTES and len(lines) > 1:
        lines.pop()  # cut off
    lines = [line for line in lines if line.strip()]
    if lines[0].startswith("{"):
        return _jsonl(path, encoding, lines)
    if lines[0].startswith("["):
        raise NmtError(f"{path}: a JSON array", f"one object per line: jq -c '.[]' {path}")
    source = _table(path, encoding, lines)
    if source is not None:
        return source
    side = _language(lines)
    if side is None:
        raise NmtError(
            f"{path}: neither Chinese nor English text in a known format",
            "formats: tsv, csv, jsonl, tmx, po, xliff, or two files of lines",
        )
    return side, encoding


def _decode(path: Path, data: bytes) -> tuple[str, str]:
    """Return the encoding of a sample of a file, and its text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", data[: len(data) // 2 * 2].decode("utf-16", errors="ignore")
    texts = {}
    for encoding in ("utf-8", "gb18030", "big5"):
        for cut in range(4):  # the sample may end inside a character
            try:
                texts[encoding] = data[: len(data) - cut].decode(encoding)
            except UnicodeDecodeError:
                continue
            break
        if "utf-8" in texts:
            return "utf-8", texts["utf-8"].removeprefix("\ufeff")
    if not texts:
        raise NmtError(f"{path}: not text in UTF-8, UTF-16, GB18030 or Big5", "convert it to UTF-8")
    best = max(texts, key=lambda encoding: sum(c in _FREQUENT for c in texts[encoding]))
    return best, texts[best]


def _language(cells: Sequence[str]) -> str | None:
    """Return ``zh`` or ``en`` for the main script of some text, None for neither."""
    text = " ".join(cells)
    han, latin = len(re.findall(HAN, text)), len(re.findall("[A-Za-z]", text))
    if han == latin == 0:
        return None
    return "zh" if 3 * han >= latin else "en"


def _table(path: Path, encoding: str, lines: Sequence[str]) -> Source | None:
    """Return the source of a table with a Chinese and an English column, if it is one."""
    for delimiter in "\t,;|":
        if delimiter == "\t":
            rows = [line.split("\t") for line in lines]
        else:
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        width = len(rows[0])
        same = [row for row in rows if len(row) == width]
        if width < 2 or len(same) < 0.9 * len(rows):
            continue
        columns = list(zip(*(same[1:] or same), strict=True))
        languages = [_language(column) for column in columns]
        if "zh" not in languages or "en" not in languages:
            continue
        src = languages.index("zh")
        # Of several Latin columns, identifiers are short.
        english = [number for number, language in enumerate(languages) if language == "en"]
        trg = max(english, key=lambda number: sum(map(len, columns[number])))
        first = rows[0][src].strip()
        has_names = len(rows) > 1 and (_language([first]) != "zh" or first in _COLUMN_NAMES)
        if not has_names and (delimiter != "\t" or (width, src, trg) != (2, 0, 1)):
            names = ["zh" if n == src else "en" if n == trg else f"c{n}" for n in range(width)]
            raise NmtError(
                f"{path}: a table without column names, Chinese in column {src + 1} and English "
                f"in column {trg + 1}",
                f"add a first line: {delimiter.join(names)}",
            )
        keys: dict[str, Any] = {"path": path, "encoding": encoding}
        if has_names:
            keys |= {"src": rows[0][src], "trg": rows[0][trg]}
        if delimiter == "\t":
            return TsvSource(source="tsv", **keys)
        return CsvSource(source="csv", delimiter=delimiter, **keys)
    return None


def _jsonl(path: Path, encoding: str, lines: Sequence[str]) -> Source:
    values: dict[str, list[str]] = {}
    for line in lines:
        try:
            for key, value in _strings(json.loads(line)):
                values.setdefault(key, []).append(value)
        except ValueError:
            raise NmtError(f"{path}: not one JSON object per line") from None
    texts = {"zh": "", "en": ""}
    for key, cells in values.items():
        language = _language(cells)
        # Of several keys with a language, take the longest text.
        if language and sum(map(len, cells)) > sum(map(len, values.get(texts[language], []))):
            texts[language] = key
    if not all(texts.values()):
        raise NmtError(f"{path}: no key with Chinese and one with English text")
    return JsonlSource.model_validate(
        {"source": "jsonl", "path": path, "encoding": encoding, "src": texts["zh"],
         "trg": texts["en"]}
    )  # fmt: skip


def _strings(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the strings of an object with their keys, joined by dots."""
    if not isinstance(value, dict):
        raise ValueError("not an object")
    for key, item in value.items():
        if isinstance(item, str):
            yield prefix + key, item
        elif isinstance(item, dict):
            yield from _strings(item, f"{prefix}{key}.")
