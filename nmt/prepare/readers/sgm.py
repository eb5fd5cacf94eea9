"""Read two WMT or IWSLT files in markup, whose segments correspond."""

from __future__ import annotations

from collections.abc import Generator

from nmt.config.sources import SgmSource
from nmt.errors import NmtError
from nmt.io.read import Meter, read_lines
from nmt.io.sgm import parse_segments
from nmt.prepare.pair import Pair


def read_sgm(source: SgmSource, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Yield the pairs of two files in markup, which are held in memory.

    Raises:
        NmtError: a file without segments; different numbers of segments.
    """
    sides = []
    for path, role in ((source.src, "src"), (source.trg, "ref")):
        lines = list(read_lines(path, source.encoding, meter, markup=True))
        sides.append(parse_segments(lines, path, role)[0])
    src, trg = sides
    if len(src) != len(trg):
        raise NmtError(
            f"{len(src)} segments in {source.src}, {len(trg)} in {source.trg}",
            "the segments of the two files must correspond",
        )
    for pair in zip(src, trg, strict=True):
        yield Pair(*pair)
