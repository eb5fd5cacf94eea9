"""Read gettext catalogues."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from nmt.io.read import Meter
from nmt.prepare.pair import Pair
from nmt.prepare.readers.toolkit import parse_file, strings


def read_po(path: Path, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the messages of a gettext catalogue from English to Chinese.

    An untranslated or fuzzy entry has an empty Chinese side. Of plural forms the last one
    is taken, since Chinese has only one. Obsolete entries and the header are skipped.
    """
    for unit in parse_file(path, "po", _parse, meter).units:
        if unit.isheader() or unit.isobsolete():
            continue
        target = "" if unit.isfuzzy() else str(strings(unit.target)[-1])
        yield Pair(target, str(strings(unit.source)[-1]))


def _parse(content: bytes) -> Any:
    from translate.storage import po

    return po.pofile.parsestring(content)
