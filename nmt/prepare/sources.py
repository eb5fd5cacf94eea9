"""Dispatch of a source to the reader of its format.

All readers stream. A unit without its other side gives a pair with an empty side, so a
source gives as many pairs as it has lines or units and nothing is dropped uncounted.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from nmt.config.sources import (
    CsvSource,
    HskSource,
    JsonlSource,
    ParallelSource,
    PoSource,
    SgmSource,
    Source,
    TmxSource,
    TsvSource,
)
from nmt.io.read import Meter
from nmt.prepare.pair import Pair
from nmt.prepare.readers import hsk, lines, po, sgm, tmx, xliff


def read_pairs(source: Source, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the pairs of one source, in its order.

    Args:
        source: the source.
        meter: updated with how far its files have been read.

    Raises:
        NmtError: missing or malformed file, with the line; the package for this
            format is not installed.
    """
    if isinstance(source, TsvSource):
        return lines.read_tsv(source, meter)
    if isinstance(source, ParallelSource):
        return lines.read_parallel(source, meter)
    if isinstance(source, SgmSource):
        return sgm.read_sgm(source, meter)
    if isinstance(source, CsvSource):
        return lines.read_csv(source, meter)
    if isinstance(source, JsonlSource):
        return lines.read_jsonl(source, meter)
    if isinstance(source, HskSource):
        return hsk.read_sentences()
    if isinstance(source, TmxSource):
        return tmx.read_tmx(source.path, meter)
    if isinstance(source, PoSource):
        return po.read_po(source.path, meter)
    return xliff.read_xliff(source.path, meter)


def read_extra_pairs(source: Source) -> Generator[Pair, None, None]:
    """Stream the pairs of a source that may only be trained on, never held out."""
    if isinstance(source, HskSource) and source.glosses:
        yield from hsk.read_glosses()


def source_files(source: Source) -> list[Path]:
    """Return the files a source reads."""
    if isinstance(source, ParallelSource | SgmSource):
        return [source.src, source.trg]
    return [] if isinstance(source, HskSource) else [source.path]


def describe(source: Source) -> str:
    """Return a short name for tables and messages."""
    if isinstance(source, HskSource):
        return "hsk-sentences-audio 1.0.0 (CC-BY-SA 4.0)"
    files = " + ".join(str(path) for path in source_files(source))
    return "standard input" if files == "-" else files
