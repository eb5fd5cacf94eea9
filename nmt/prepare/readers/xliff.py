"""Read XLIFF 1.2 and 2.0 files."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.io.read import Meter
from nmt.prepare.pair import Pair
from nmt.prepare.readers.languages import side_of
from nmt.prepare.readers.toolkit import parse_file


def read_xliff(path: Path, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the units of an XLIFF 1.2 or 2.0 file, in either direction.

    Raises:
        NmtError: its languages are not English and Chinese.
    """
    store = parse_file(path, "xliff", _parse, meter)
    languages = [store.getsourcelanguage(), store.gettargetlanguage()]
    sides = [side_of(language) for language in languages]
    # The target language may be missing from a file that is not translated yet.
    if sides not in (["zh", "en"], ["en", "zh"]) and (sides[0] is None or languages[1]):
        raise NmtError(f"{path}: from {languages[0]} to {languages[1]}, not English and Chinese")
    for unit in store.units:
        if unit.isheader():
            continue
        source, target = str(unit.source or ""), str(unit.target or "")
        yield Pair(source, target) if sides[0] == "zh" else Pair(target, source)


def _parse(content: bytes) -> Any:
    from translate.storage import xliff, xliff2

    is_version_2 = b"urn:oasis:names:tc:xliff:document:2" in content[:4096]
    return (xliff2.Xliff2File if is_version_2 else xliff.xlifffile).parsestring(content)
