"""Where pairs come from. A pair stays a pair from here on: never two lists.

Everything is read as a stream. What a reader can't pair (a unit without its other side)
comes out as a pair with an empty side, so that it is counted like any other: as many
come out as there are lines or units in the source.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nmt.config.sources import (
    CsvSource,
    HskSource,
    JsonlSource,
    MtdataSource,
    ParallelSource,
    PoSource,
    Source,
    TmxSource,
    TsvSource,
    XliffSource,
)
from nmt.errors import NmtError, where
from nmt.io.read import Meter, read_lines
from nmt.prepare.readers import catalogues


class Pair(NamedTuple):
    """A sentence and its translation, as they stood in the source."""

    src: str
    trg: str


def read_pairs(source: Source, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the pairs of one source, in its order.

    Args:
        source: where from.
        meter: told how far its files have been read.

    Raises:
        NmtError: missing or malformed file, with the line; a package that reads this
            kind of source is not installed.
    """
    if isinstance(source, TsvSource):
        return _read_tsv(source, meter)
    if isinstance(source, ParallelSource):
        return _read_parallel(source, meter)
    if isinstance(source, CsvSource):
        return _read_csv(source, meter)
    if isinstance(source, JsonlSource):
        return _read_jsonl(source, meter)
    if isinstance(source, HskSource):
        rows: Iterator[tuple[str, str]] = catalogues.hsk_sentences()
    elif isinstance(source, TmxSource):
        rows = catalogues.read_tmx(source.path, meter)
    elif isinstance(source, PoSource):
        rows = catalogues.read_po(source.path, meter)
    elif isinstance(source, XliffSource):
        rows = catalogues.read_xliff(source.path, meter)
    else:
        rows = catalogues.read_mtdata(source.id)
    return (Pair(*row) for row in rows)


def read_extra_pairs(source: Source) -> Generator[Pair, None, None]:
    """Stream the pairs of a source that may only be trained on, never held out."""
    if isinstance(source, HskSource) and source.glosses:
        for row in catalogues.hsk_glosses():
            yield Pair(*row)


def source_files(source: Source) -> list[Path]:
    """The files a source reads, for checksums; downloads those of a catalogue."""
    if isinstance(source, ParallelSource):
        return [source.src, source.trg]
    if isinstance(source, MtdataSource):
        return catalogues.mtdata_files(source.id)
    return [] if isinstance(source, HskSource) else [source.path]


def describe(source: Source) -> str:
    """A short name for tables and messages."""
    if isinstance(source, HskSource):
        return "hsk-sentences-audio 1.0.0 (CC-BY-SA 4.0)"
    if isinstance(source, MtdataSource):
        return f"mtdata {source.id}"
    files = " + ".join(str(path) for path in source_files(source))
    return "standard input" if files == "-" else files


def _read_tsv(source: TsvSource, meter: Meter | None) -> Generator[Pair, None, None]:
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        numbered = enumerate(lines, start=1)
        if source.src is None or source.trg is None:
            yield from _read_two_columns(source.path, numbered)
            return
        header = next(numbered, (1, ""))[1].split("\t")
        places = [_column(source.path, name, header) for name in (source.src, source.trg)]
        for number, line in numbered:
            cells = line.split("\t")
            _check_width(source.path, number, cells, header)
            yield Pair(cells[places[0]], cells[places[1]])


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


def _read_csv(source: CsvSource, meter: Meter | None) -> Generator[Pair, None, None]:
    csv.field_size_limit(1 << 27)  # a long cell is for the cleaning rules to drop, and to show
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        rows = csv.reader((line + "\n" for line in lines), delimiter=source.delimiter, strict=True)
        try:
            header = next(rows, [])
            places = [_column(source.path, name, header) for name in (source.src, source.trg)]
            for row in rows:
                if not row:  # a blank line
                    yield Pair("", "")
                    continue
                _check_width(source.path, rows.line_num, row, header)
                yield Pair(row[places[0]], row[places[1]])
        except csv.Error as error:
            raise NmtError(
                f"{where(source.path, rows.line_num)}: not CSV: {error}",
                "a quote inside a quoted cell is written twice",
            ) from error


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


def _read_jsonl(source: JsonlSource, meter: Meter | None) -> Generator[Pair, None, None]:
    with contextlib.closing(read_lines(source.path, source.encoding, meter)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                yield Pair("", "")
                continue
            place = where(source.path, number)
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise NmtError(f"{place}: not JSON: {error}") from None
            yield Pair(_lookup(record, source.src, place), _lookup(record, source.trg, place))


def _lookup(record: Any, key: str, place: str) -> str:
    value = record
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
            raise NmtError(
                f"{place}: no key {key}; there is {known or 'nothing'}",
                "set src and trg under this source to the keys' names",
            )
        value = value[part]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NmtError(f"{place}: {key} is {json.dumps(value)[:40]}, not text")
    # JSON can spell half of a surrogate pair, which no text file can hold.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_parallel(source: ParallelSource, meter: Meter | None) -> Generator[Pair, None, None]:
    # Closed here: if one file is at fault, nobody else would close the other.
    with (
        contextlib.closing(read_lines(source.src, source.encoding, meter)) as src_lines,
        contextlib.closing(read_lines(source.trg, source.encoding, meter)) as trg_lines,
    ):
        both = itertools.zip_longest(src_lines, trg_lines)
        for number, (src, trg) in enumerate(both, start=1):
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
