"""Translate the text of HTML and leave its markup unchanged.

A document is divided into segments, which end at block elements and line breaks. Inline tags
inside a segment become placeholder tags ``<x0>…</x0>``, which the translator carries over as
protected spans. Everything outside of segments is copied.

The scanner is not `html.parser`, which does not return end tags and character references as
written, and whose time is quadratic in malformed text.
"""

from __future__ import annotations

import asyncio
import html
import itertools
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import regex

# fmt: off
_OPAQUE = frozenset([  # elements whose content is copied
    "script", "style", "textarea", "template", "noscript", "svg", "math", "code", "pre", "kbd",
    "samp", "var", "iframe", "object",
])
_RAW = frozenset(["script", "style", "textarea"])  # hold no elements
_INLINE = frozenset([
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em",
    "font", "i", "img", "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp",
    "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
])
_VOID = frozenset([  # elements without an end tag
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
])
# fmt: on
_TOKEN = regex.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|</?(?P<name>[A-Za-z][^\s/<>]*+)(?P<attributes>(?:[^<>\"']++|\"[^\"]*+\"|'[^']*+')*+)>"
    r"|<[!?][^>]*+(?:>|\Z)",
    regex.DOTALL,
)
_TAG = regex.compile(r"</?(?P<name>[A-Za-z][^\s/<>]*+)(?P<attributes>[^<>]*+)>")
_MAX_FAILURES = 100  # of `_TOKEN`, which searches for the end of a quotation; then `_TAG` is used
_NO_TRANSLATION = re.compile(
    r"""translate\s*=\s*["']?no\b|class\s*=\s*(?:"[^"]*\bnotranslate\b|'[^']*\bnotranslate\b)""",
    re.IGNORECASE,
)
_MAX_TAGS = 32  # placeholders in a segment; with more, its texts are translated one by one
_SPACE_BEFORE = re.compile(r"[.,;:!?)\]}%]")
_LARGE = 1 << 14  # characters; larger documents are parsed in another thread


@dataclass
class Tag:
    """A piece of markup.

    Attributes:
        raw: as in the document.
        kind: ``open``, ``close``, ``void`` (complete in itself), ``boundary`` (ends a segment)
            or ``unpaired``.
        number: of the placeholder; the two tags of an element share it.
    """

    raw: str
    kind: str = "void"
    number: int = 0


Item = str | Tag  # text as in the document, or markup


@dataclass
class Segment:
    """A translatable stretch of a document.

    Attributes:
        before: copied before the translation: white space and tags.
        items: texts without character references, and tags.
        after: copied after the translation.
        name: of the placeholder tags; does not occur in the text.
    """

    before: str
    items: list[Item]
    after: str
    name: str = field(init=False)

    def __post_init__(self) -> None:
        text = "".join(item for item in self.items if isinstance(item, str))
        self.name = "x"
        while f"<{self.name}" in text or f"</{self.name}" in text:
            self.name += "x"

    @property
    def line(self) -> str:
        """The line to translate, with placeholders for tags."""
        return "".join(
            item if isinstance(item, str) else self._placeholder(item) for item in self.items
        )

    @property
    def texts(self) -> list[str]:
        """The texts between the tags; blank ones are omitted."""
        return [item for item in self.items if isinstance(item, str) and item.strip()]

    @property
    def is_whole(self) -> bool:
        """Whether the segment is translated as one line."""
        return sum(isinstance(item, Tag) for item in self.items) <= _MAX_TAGS

    def restore(self, translation: str) -> str | None:
        """Return the translation of `line` as HTML; None if its tags are not well-formed."""
        tags = {self._placeholder(item): item for item in self.items if isinstance(item, Tag)}
        out: list[str] = []
        open_numbers: list[int] = []
        for index, part in enumerate(re.split(rf"(</?{self.name}\d+/?>)", translation)):
            if index % 2 == 0:
                out.append(html.escape(part, quote=False))
                continue
            tag = tags.pop(part, None)
            if tag is None:
                return None
            out.append(tag.raw)
            if tag.kind == "open":
                open_numbers.append(tag.number)
            elif tag.kind == "close" and (not open_numbers or open_numbers.pop() != tag.number):
                return None
        return None if tags else self.before + "".join(out) + self.after

    def join(self, translations: Sequence[str]) -> str:
        """Return HTML from the translations of `texts`; the tags keep their places."""
        remaining = iter(translations)
        out: list[str] = []
        gap: list[Tag] = []
        for item in self.items:
            if isinstance(item, Tag):
                gap.append(item)
            elif not item.strip():
                gap.append(Tag(item))
            else:
                text = html.escape(next(remaining).strip(), quote=False)
                out += [*_space(gap, text), text] if out else [*(tag.raw for tag in gap), text]
                gap = []
        out += [tag.raw for tag in gap]
        return self.before + "".join(out) + self.after

    def _placeholder(self, tag: Tag) -> str:
        slash, end = ("/" if tag.kind == "close" else ""), ("/" if tag.kind == "void" else "")
        return f"<{slash}{self.name}{tag.number}{end}>"


class Document:
    """An HTML text in parts: strings that are copied, and segments to translate."""

    def __init__(self, text: str) -> None:
        self.parts: list[str | Segment] = []
        items: list[Item] = []
        for item in _items(text):
            if isinstance(item, Tag) and item.kind == "boundary":
                self._add(items)
                self.parts.append(item.raw)
                items = []
            else:
                items.append(item)
        self._add(items)

    @property
    def segments(self) -> list[Segment]:
        """The segments, in the order of the document."""
        return [part for part in self.parts if isinstance(part, Segment)]

    def fill(self, translations: Sequence[str]) -> str:
        """Return the document with an HTML text in place of each segment."""
        remaining = iter(translations)
        return "".join(part if isinstance(part, str) else next(remaining) for part in self.parts)

    def _add(self, items: list[Item]) -> None:
        """Append items without boundaries; unpaired tags divide them."""
        _pair(items)
        current: list[Item] = []
        for item in items:
            if isinstance(item, Tag) and item.kind == "unpaired":
                self._add_segment(current)
                self.parts.append(item.raw)
                current = []
            else:
                current.append(item)
        self._add_segment(current)

    def _add_segment(self, items: list[Item]) -> None:
        texts = (html.unescape(item) for item in items if isinstance(item, str))
        if not any(map(str.isalnum, itertools.chain.from_iterable(texts))):
            self.parts += map(_source, items)
            return
        before, core, after = _peel(items)
        spaced = [
            re.sub(r"\s+", " ", html.unescape(item)) if isinstance(item, str) else item
            for item in core
        ]
        self.parts.append(Segment(before, spaced, after))


async def translate_html(text: str, translate: Callable[[list[str]], Awaitable[list[str]]]) -> str:
    """Translate the text of an HTML document or fragment.

    Args:
        text: HTML, well-formed or not.
        translate: translates lines.
    """
    document = await asyncio.to_thread(Document, text) if len(text) > _LARGE else Document(text)
    whole = [segment for segment in document.segments if segment.is_whole]
    lines = await translate([segment.line for segment in whole])
    results = {id(s): s.restore(line) for s, line in zip(whole, lines, strict=True)}
    divided = [segment for segment in document.segments if results.get(id(segment)) is None]
    texts = iter(await translate([text for segment in divided for text in segment.texts]))
    for segment in divided:
        results[id(segment)] = segment.join(list(itertools.islice(texts, len(segment.texts))))
    return document.fill([results[id(segment)] or "" for segment in document.segments])


def _items(text: str) -> Iterator[Item]:
    """Yield text and markup of a document; a ``<`` that begins no tag is text."""
    begin = end = 0  # of the text since the last tag
    failures = 0
    while (end := text.find("<", end)) >= 0:
        match = _TOKEN.match(text, end) if failures < _MAX_FAILURES else None
        if match is None:
            failures += 1
            match = _TAG.match(text, end)
        if match is None:
            end += 1
            continue
        if end > begin:
            yield text[begin:end]
        begin, end = end, _end_of_element(text, match)
        yield _tag(text[begin:end], match, is_element=end > match.end())
        begin = end
    if begin < len(text):
        yield text[begin:]


def _end_of_element(text: str, match: regex.Match[str]) -> int:
    """Return the end of an element whose content is copied, or of the tag otherwise."""
    name, attributes = (match["name"] or "").lower(), match["attributes"] or ""
    is_single = match[0].startswith(("</", "<!", "<?")) or attributes.endswith("/")
    if is_single or name in _VOID:
        return match.end()
    if name not in _OPAQUE and not _NO_TRANSLATION.search(attributes):
        return match.end()
    pattern = re.compile(rf"<(/?){re.escape(name)}(?=[\s/>])[^<>]*>", re.IGNORECASE)
    depth = 1
    for tag in pattern.finditer(text, match.end()):
        depth += -1 if tag[1] else int(name not in _RAW)
        if depth == 0:
            return tag.end()
    return len(text)


def _tag(raw: str, match: regex.Match[str], *, is_element: bool) -> Tag:
    name = (match["name"] or "").lower()
    if raw.startswith("<!--"):
        return Tag(raw)
    if name not in _INLINE:
        return Tag(raw, "boundary")
    if is_element or name in _VOID or raw.endswith("/>"):
        return Tag(raw)
    return Tag(raw, "close" if raw.startswith("</") else "open")


def _pair(items: list[Item]) -> None:
    """Number the tags in place; a tag without its second tag becomes ``unpaired``."""
    stack: list[tuple[str, Tag]] = []
    open_names: dict[str, int] = {}
    number = 0
    for item in items:
        if isinstance(item, str):
            continue
        item.number, number = number, number + 1
        if item.kind == "void":
            continue
        name = re.split(r"[\s/>]", item.raw.lstrip("</"), maxsplit=1)[0].lower()
        if item.kind == "open":
            stack.append((name, item))
            open_names[name] = open_names.get(name, 0) + 1
            continue
        if not open_names.get(name):
            item.kind = "unpaired"
            continue
        opened, tag = stack.pop()
        while opened != name:
            tag.kind = "unpaired"
            open_names[opened] -= 1
            opened, tag = stack.pop()
        open_names[name] -= 1
        item.number = tag.number
    for _, tag in stack:
        tag.kind = "unpaired"


def _peel(items: list[Item]) -> tuple[str, list[Item], str]:
    """Separate white space and tags around the text of a segment."""
    core = deque(items)
    before: list[str] = []
    after: list[str] = []
    while core:
        first, last = core[0], core[-1]
        if _is_peeled(first):
            before.append(_source(core.popleft()))
        elif _is_peeled(last):
            after.append(_source(core.pop()))
        elif isinstance(first, Tag) and isinstance(last, Tag) and first.number == last.number:
            before.append(first.raw)
            after.append(last.raw)
            core.popleft()
            core.pop()
        else:
            break
    for side, index in ((before, 0), (after, -1)):
        item = core[index]
        if isinstance(item, str):
            text = item.lstrip() if index == 0 else item.rstrip()
            size = len(item) - len(text)
            side.append(item[:size] if index == 0 else item[len(text) :])
            core[index] = text
    return "".join(before), list(core), "".join(reversed(after))


def _is_peeled(item: Item) -> bool:
    return not item.strip() if isinstance(item, str) else item.kind == "void"


def _space(gap: list[Tag], text: str) -> list[str]:
    """Return the markup between two texts, with a space unless there is one."""
    raws = [tag.raw for tag in gap]
    if _SPACE_BEFORE.match(text) or any(raw.isspace() for raw in raws):
        return raws
    first_open = next((i for i, tag in enumerate(gap) if tag.kind == "open"), len(raws))
    return [*raws[:first_open], " ", *raws[first_open:]]


def _source(item: Item) -> str:
    return item if isinstance(item, str) else item.raw
