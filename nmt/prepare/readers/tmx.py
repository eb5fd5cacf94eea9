"""Read TMX translation memories as a stream, since they may be of any size."""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

from nmt.errors import NmtError, where
from nmt.io.read import Meter, damaged, is_damage, open_bytes
from nmt.prepare.pair import Pair
from nmt.prepare.readers.languages import side_of

_CODES = {"bpt", "ept", "ph", "it", "ut"}  # their content is formatting, not text


def read_tmx(path: Path, meter: Meter | None = None) -> Generator[Pair, None, None]:
    """Stream the units of a translation memory.

    Raises:
        NmtError: not XML, with the line; compressed data damaged.
    """
    with open_bytes(path, meter) as file:
        ancestors: list[ET.Element] = []
        units = 0
        try:
            for event, element in ET.iterparse(_Utf8Reader(file, path), events=("start", "end")):
                if event == "start":
                    ancestors.append(element)
                    continue
                ancestors.pop()
                if _name(element) == "tu":
                    units += 1
                    yield _unit(element)
                    ancestors[-1].clear()  # free the unit
        except ET.ParseError as error:
            raise NmtError(
                f"{where(path, error.position[0])}: not well-formed TMX ({error})",
                "export the memory again, or correct this line",
            ) from None
        except (LookupError, ValueError) as error:
            raise NmtError(f"{path}: not readable as TMX ({error})") from None
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, units, error) from error


# Declared encodings that expat does not decode, and Python's codec for each.
_CODECS = {
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5",
    "big5-hkscs": "big5hkscs",
}  # fmt: skip
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w-]+)["']""")


class _Utf8Reader:
    """A readable that converts XML declared in a Chinese encoding to UTF-8."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._line = 1
        self._head = file.read(256)
        self._decoder: codecs.IncrementalDecoder | None = None
        declared = _DECLARED.match(self._head)
        codec = _CODECS.get(declared[1].decode().lower()) if declared else None
        if declared and codec:
            self._decoder = codecs.getincrementaldecoder(codec)()
            self._head = self._head.replace(declared[1], b"utf-8", 1)

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Return the next bytes, about `size` of them; none at the end.

        Raises:
            NmtError: they are not in the declared encoding.
        """
        while True:
            raw, self._head = self._head or self._file.read(size), b""
            if self._decoder is None:
                return raw
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                line = self._line + raw.count(b"\n", 0, error.start)
                raise NmtError(
                    f"{where(self._path, line)}: not valid {error.encoding.upper()}, "
                    "which is declared in its first line",
                    "export the memory again, in UTF-8",
                ) from None
            self._line += raw.count(b"\n")
            if text or not raw:  # empty text: only part of a character was read
                return text.encode()


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _unit(unit: ET.Element) -> Pair:
    """Return the first Chinese and the first English variant, empty where missing."""
    texts = {"zh": "", "en": ""}
    for variant in unit:
        if _name(variant) != "tuv":
            continue
        language = variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang")
        side = side_of(language)
        segment = next((child for child in variant if _name(child) == "seg"), None)
        if side is not None and segment is not None and not texts[side]:
            texts[side] = "".join(_visible(segment)).replace("\r\n", "\n")
    return Pair(texts["zh"], texts["en"])


def _visible(element: ET.Element) -> Iterator[str]:
    """Yield the text of an element without that of formatting codes."""
    yield element.text or ""
    for child in element:
        if _name(child) not in _CODES:
            yield from _visible(child)
        yield child.tail or ""
