"""Sources that are no plain lines: translation memories, catalogues of messages, the sample.

TMX is parsed as a stream here, since a memory may be of any size. PO and XLIFF, one
program's texts each, go through translate-toolkit, which holds one file at a time.
"""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError, where
from nmt.io.read import Meter, damaged, is_damage, open_bytes

Row = tuple[str, str]  # Chinese, English

_CHINESE = {"zh", "zho", "chi", "cmn", "yue", "chs", "cht"}
_ENGLISH = {"en", "eng"}
_CODES = {"bpt", "ept", "ph", "it", "ut"}  # TMX: what they hold is formatting, not text


def _side(language: str | None) -> str | None:
    base = re.split("[-_]", (language or "").lower())[0]
    return "zh" if base in _CHINESE else "en" if base in _ENGLISH else None


def read_tmx(path: Path, meter: Meter | None = None) -> Iterator[Row]:
    """Stream the units of a translation memory.

    Raises:
        NmtError: not XML, with the line; compressed data damaged.
    """
    with open_bytes(path, meter) as file:
        ancestors: list[ET.Element] = []
        seen = 0
        try:
            for event, element in ET.iterparse(_InUtf8(file, path), events=("start", "end")):
                if event == "start":
                    ancestors.append(element)
                    continue
                ancestors.pop()
                if _name(element) == "tu":
                    seen += 1
                    yield _unit(element)
                    ancestors[-1].clear()  # or every unit would stay in memory
        except ET.ParseError as error:
            raise NmtError(
                f"{where(path, error.position[0])}: not well-formed TMX ({error})",
                "export the memory again, or mend this line",
            ) from None
        except (LookupError, ValueError) as error:
            raise NmtError(f"{path}: not readable as TMX ({error})") from None
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, seen, error) from error


# Encodings that a memory may declare, and how Python reads them; the parser knows none.
_CODECS = {
    "gb2312": "gb18030", "gbk": "gb18030", "gb18030": "gb18030", "big5": "big5",
    "big5-hkscs": "big5hkscs",
}  # fmt: skip
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w-]+)["']""")


class _InUtf8:
    """An XML file to read from; one that declares a Chinese encoding is put into UTF-8."""

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
        """The next bytes, none at the end; as many as it likes.

        Raises:
            NmtError: they are not in the encoding declared.
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
            if text or not raw:  # half a character alone is not the end
                return text.encode()


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _unit(unit: ET.Element) -> Row:
    """The first Chinese and the first English variant; an empty text for a missing one."""
    found = {"zh": "", "en": ""}
    for variant in unit:
        if _name(variant) != "tuv":
            continue
        language = variant.get("{http://www.w3.org/XML/1998/namespace}lang") or variant.get("lang")
        side = _side(language)
        segment = next((child for child in variant if _name(child) == "seg"), None)
        if side is not None and segment is not None and not found[side]:
            found[side] = "".join(_visible(segment))
    return found["zh"], found["en"]


def _visible(element: ET.Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if _name(child) not in _CODES:
            yield from _visible(child)
        yield child.tail or ""


def read_po(path: Path, meter: Meter | None = None) -> Iterator[Row]:
    """Stream the messages of a gettext catalogue from English to Chinese.

    An untranslated or fuzzy entry has an empty Chinese side; of plural forms the last
    is taken, since Chinese has one. Obsolete entries and the header are no messages.
    """
    for unit in _toolkit_units(path, "po", meter)[1]:
        if unit.isheader() or unit.isobsolete():
            continue
        target = "" if unit.isfuzzy() else str(_strings(unit.target)[-1])
        yield target, str(_strings(unit.source)[-1])


def read_xliff(path: Path, meter: Meter | None = None) -> Iterator[Row]:
    """Stream the units of an XLIFF 1.2 or 2.0 file, in either direction.

    Raises:
        NmtError: its languages are not English and Chinese.
    """
    store, units = _toolkit_units(path, "xliff", meter)
    languages = [store.getsourcelanguage(), store.gettargetlanguage()]
    sides = [_side(language) for language in languages]
    # A file that nobody has translated yet may lack its target language.
    if sides not in (["zh", "en"], ["en", "zh"]) and (sides[0] is None or languages[1]):
        raise NmtError(f"{path}: from {languages[0]} to {languages[1]}, not English and Chinese")
    for unit in units:
        if unit.isheader():
            continue
        row = str(unit.source or ""), str(unit.target or "")
        yield row if sides[0] == "zh" else (row[1], row[0])


def _strings(text: Any) -> list[Any]:
    return list(getattr(text, "strings", [])) or [text or ""]


def _toolkit_units(path: Path, kind: str, meter: Meter | None) -> tuple[Any, list[Any]]:
    try:
        from translate.storage import po, xliff, xliff2
    except ImportError:
        raise NmtError(
            f"{path}: reading {kind} needs the package translate-toolkit",
            "pip install 'nmt-zh-en[formats]', or in a clone: pip install -e '.[formats]'",
        ) from None
    with open_bytes(path, meter) as file:
        try:
            content = file.read()
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, 0, error) from error
    if kind == "po":
        parse = po.pofile.parsestring
    else:
        second = b"urn:oasis:names:tc:xliff:document:2" in content[:4096]
        parse = (xliff2.Xliff2File if second else xliff.xlifffile).parsestring
    try:
        store = parse(content)
        return store, list(store.units)
    except Exception as error:  # every format of the toolkit has errors of its own
        raise NmtError(f"{path}: not readable as {kind} ({error})") from error


_UNTRANSLATED = re.compile(r"placeholder(-[pq]\d+)?")


def hsk_sentences() -> Iterator[Row]:
    """The graded sentences of the sample; one that nobody has translated yet has an empty side."""
    for row in _hsk_rows():
        english = row["translation"]["en"]
        yield row["chinese"], "" if _UNTRANSLATED.fullmatch(english) else english


def _hsk_rows() -> list[dict[str, Any]]:
    try:
        from hsk_sentences_audio import load_sentences
    except ImportError:
        raise NmtError(
            "source hsk: the package hsk-sentences-audio is not installed",
            "pip install 'nmt-zh-en[sample]', or in a clone: pip install -e '.[sample]'",
        ) from None
    rows: list[dict[str, Any]] = load_sentences()
    return rows


_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_MAX_SENSES = 2  # later senses of a dictionary gloss are rare ones


def hsk_glosses() -> Iterator[Row]:
    """Each word of the sample with the first senses of its gloss, once.

    ``to like; to be fond of`` gives ``like`` and ``be fond of``: the sentences use
    the verb without its ``to``, and never the explanation in brackets.
    """
    seen: set[tuple[str, str]] = set()
    for row in _hsk_rows():
        for token in row["tokens"]:
            word, gloss = token["word"], token["gloss_en"]
            key = (word, gloss)
            if key in seen:
                continue
            seen.add(key)
            for sense in senses(gloss):
                yield word, sense


def senses(gloss: str) -> list[str]:
    """The first senses of a dictionary gloss, bare."""
    bare = (_ASIDE.sub("", sense).strip(" .,") for sense in gloss.split(";"))
    found = [sense.removeprefix("to ") for sense in bare]
    return [sense for sense in found if sense][:_MAX_SENSES]


def mtdata_files(id_: str) -> list[Path]:
    """Download a data set of the catalogue, unless it is there, and name its files.

    Raises:
        NmtError: no such data set, or it can't be fetched.
    """
    entry, cache = _mtdata_entry(id_)
    urls = entry.url if isinstance(entry.url, (list, tuple)) else [entry.url]
    urls = [*urls, *(entry.in_paths if entry.in_ext == "opus_xces" else [])]
    name = None if len(urls) > 1 else entry.filename
    try:
        return [Path(cache.get_local_path(url, filename=name, entry=entry)) for url in urls]
    except Exception as error:  # requests', the file system's and bare assertions
        raise NmtError(
            f"mtdata {id_}: cannot be fetched from {urls[0]} ({type(error).__name__}: {error})",
            "check the network; a finished download is kept and used again",
        ) from error


def read_mtdata(id_: str) -> Iterator[Row]:
    """Stream the pairs of a data set of the catalogue."""
    from mtdata.parser import Parser

    mtdata_files(id_)
    entry, cache = _mtdata_entry(id_)
    swap = _side(str(entry.did.langs[0])) == "en"
    segments = Parser(cache.get_entry(entry), ext=entry.in_ext or None, ent=entry)
    for first, second, *_ in segments.read_segs(show_pbar=False):
        row = (first or "", second or "")
        yield (row[1], row[0]) if swap else row


def _mtdata_entry(id_: str) -> tuple[Any, Any]:
    try:
        import mtdata
        from mtdata.cache import Cache
        from mtdata.entry import DatasetId
        from mtdata.index import INDEX
    except ImportError:
        raise NmtError(
            f"mtdata {id_}: the package mtdata is not installed",
            "pip install 'nmt-zh-en[mtdata]', or in a clone: pip install -e '.[mtdata]'",
        ) from None
    import difflib

    try:
        entry = INDEX.entries[DatasetId.parse(id_)]
    except Exception:  # a bare Exception for a malformed id, KeyError for an unknown one
        ours = [str(e.did) for e in INDEX.get_entries() if _sides(e.did.langs) == {"zh", "en"}]
        close = difflib.get_close_matches(id_, ours, n=1)
        raise NmtError(
            f"mtdata {id_}: no such data set in the catalogue",
            f"did you mean {close[0]}?" if close else "mtdata list -l zho-eng -id shows all",
        ) from None
    if _sides(entry.did.langs) != {"zh", "en"}:
        raise NmtError(f"mtdata {id_}: is not between Chinese and English")
    return entry, Cache(mtdata.cache_dir)


def _sides(languages: Any) -> set[str | None]:
    return {_side(str(language)) for language in languages}
