"""Read text files with one pair a line: TSV, CSV, JSONL, and two parallel files."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from nmt.config.sources import CsvSource, JsonlSource, ParallelSource, TsvSource
from nmt.errors import NmtError, where
from nmt.io.read import Meter, read_lines
from nmt.prepare.pair import Pair


def read_tsv(source: TsvSource, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the pairs of a table with tabs, of two columns or with names in its first line."""
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        numbered = enumerate(lines, start=1)
        if source.src is None or source.trg is None:
            yield from _read_two_columns(source.path, numbered)
            return
        header = next(numbered, (1, ""))[1].split("\t")
        columns = [_column(source.path, name, header) for name in (source.src, source.trg)]
        for number, line in numbered:
            cells = line.split("\t")
            _check_width(source.path, number, cells, header)
            yield Pair(cells[columns[0]], cells[columns[1]])


def _read_two_columns(path: Path, numbered: Iterator[tuple[int, str]]) -> Iterator[Pair]:
    for number, line in numbered:
        columns = line.split("\t")
        if len(columns) != 2:
            raise NmtError(
                f"{where(path, number)}: {len(columns)} columns, 2 are needed "
                "(Chinese, tab, English)",
                "replace a tab inside a sentence by a space; of a table with more columns, name "
                "two with src and trg"
                if len(columns) > 2
                else "a tab stands between the sides; for commas, source: csv",
            )
        yield Pair(*columns)


def read_csv(source: CsvSource, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the pairs of a CSV file with names in its first line."""
    csv.field_size_limit(1 << 27)  # a long cell is dropped and counted by the cleaning rules
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        first = next(lines, "")
        delimiter, skipped = _delimiter(source, first), 0
        if _SEPARATOR_LINE.fullmatch(first):
            first, skipped = next(lines, ""), 1
        text = (line + "\n" for line in itertools.chain([first], lines))
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        row_end = 0  # line number of the end of the last complete row
        try:
            header = next(rows, [])
            row_end = rows.line_num
            columns = [_column(source.path, name, header) for name in (source.src, source.trg)]
            for row in rows:
                row_end = rows.line_num
                if not row:  # a blank line
                    yield Pair("", "")
                    continue
                _check_width(source.path, skipped + rows.line_num, row, header)
                yield Pair(row[columns[0]], row[columns[1]])
        except csv.Error as error:
            if "unexpected end" in str(error) or "field larger" in str(error):
                raise NmtError(
                    f"{where(source.path, skipped + row_end + 1)}: not CSV: a quote is not closed "
                    f"({error})",
                    "close the quote; a quote inside a quoted cell is written twice",
                ) from error
            raise NmtError(
                f"{where(source.path, skipped + rows.line_num)}: not CSV: {error}",
                "a quote inside a quoted cell is written twice",
            ) from error


_SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE)  # written by spreadsheet programs


def _delimiter(source: CsvSource, first: str) -> str:
    """Return the delimiter: as configured, of a ``sep=`` line, or found in the header."""
    if "delimiter" in source.model_fields_set:
        return source.delimiter
    if match := _SEPARATOR_LINE.fullmatch(first):
        return match[1]
    for delimiter in (source.delimiter, ";", "\t", "|"):
        names = next(csv.reader([first], delimiter=delimiter), [])
        if source.src in names and source.trg in names:
            return delimiter
    return source.delimiter


def _column(path: Path, name: str, header: list[str]) -> int:
    if name not in header:
        raise NmtError(
            f"{where(path, 1)}: no column {name}; the first line names {', '.join(header)}",
            "set src and trg under this source to the columns' names",
        )
    return header.index(name)


def _check_width(path: Path, number: int, row: list[str], header: list[str]) -> None:
    if len(row) != len(header):
        raise NmtError(
            f"{where(path, number)}: {len(row)} columns, {len(header)} in the first line"
        )


def read_jsonl(source: JsonlSource, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the pairs of a file with one JSON object a line."""
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                yield Pair("", "")
                continue
            position = where(source.path, number)
            try:
                record = json.loads(line.removeprefix("\ufeff"))  # of concatenated files
            except (ValueError, RecursionError) as error:
                raise NmtError(f"{position}: not JSON: {error}") from None
            yield Pair(_lookup(record, source.src, position), _lookup(record, source.trg, position))


def _lookup(record: Any, key: str, position: str) -> str:
    value = record
    # A flattened record has the whole key.
    parts = [key] if isinstance(record, dict) and key in record else key.split(".")
    for part in parts:
        if not isinstance(value, dict) or part not in value:
            keys = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
            raise NmtError(
                f"{position}: no key {key}; there is {keys or 'nothing'}",
                "set src and trg under this source to the keys' names",
            )
        value = value[part]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NmtError(f"{position}: {key} is {json.dumps(value)[:40]}, not text")
    # JSON can escape half of a surrogate pair, which UTF-8 cannot encode.
    text = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\r\n", "\n")


def read_parallel(
    source: ParallelSource, meter: Meter | None = None
) -> Generator[Pair, None, None]:
    """Stream the pairs of two files whose lines correspond."""
    # `closing` closes the other file when one raises.
    with (
        contextlib.closing(read_lines(source.src, source.encoding, meter)) as src_lines,
        contextlib.closing(read_lines(source.trg, source.encoding, meter)) as trg_lines,
    ):
        rows = itertools.zip_longest(src_lines, trg_lines)
        for number, (src, trg) in enumerate(rows, start=1):
            if src is None or trg is None:
                raise _unequal(source, number)
            yield Pair(src, trg)


def _unequal(source: ParallelSource, number: int) -> NmtError:
    counts = [
        "?" if str(path) == "-" else sum(1 for _ in read_lines(path, source.encoding))
        for path in (source.src, source.trg)
    ]
    return NmtError(
        f"{counts[0]} lines in {source.src}, {counts[1]} in {source.trg}: the shorter "
        f"one ends before line {number}",
        "the two files must correspond line by line",
    )
