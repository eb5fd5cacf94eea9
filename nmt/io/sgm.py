"""Test sets in markup: WMT ``.sgm`` and ``.xml``, and IWSLT ``.xml`` and ``train.tags``.

The files are often not well-formed XML (a bare ``&``, unquoted attributes), so only the tags that
carry structure are parsed.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nmt.errors import NmtError, where

_START = re.compile(
    r"\s*<(\?xml|!doctype|!--|srcset|refset|tstset|mteval|dataset|url|(doc|seg)[\s>])",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_TAG = re.compile(
    r"<(?P<block>srcset|refset|tstset|src|ref|hyp|doc)\b(?P<attributes>[^>]*)>"
    r"|<seg\b[^>]*?(?:/>|>(?P<text>(?:(?!<seg\b).)*?)</seg\s*>)"
    r"|(?P<unclosed><seg\b)",
    re.DOTALL | re.IGNORECASE,
)
_ID = re.compile(r"""\b(?:doc)?id\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:\w+|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_ROLES = {
    "srcset": "src", "refset": "ref", "tstset": "hyp", "src": "src", "ref": "ref", "hyp": "hyp",
}  # fmt: skip


def is_markup(line: str) -> bool:
    """Whether this first line of a file starts SGML or XML."""
    return _START.match(line) is not None


def parse_segments(lines: Sequence[str], path: Path, role: str) -> list[list[str]]:
    """Return the segments of a file in markup, in order, one list per complete text.

    A document that occurs several times, with different systems or translators, gives several
    texts. Segments of a ``train.tags`` file are the lines without a tag.

    Args:
        lines: of the file.
        path: for messages.
        role: ``src``, ``ref`` or ``hyp``: the texts to return from a file with several roles.

    Raises:
        NmtError: the file has no segments, one is not closed, or the file is TMX or XLIFF.
    """
    # Line numbers stay when comments are removed.
    content = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), "\n".join(lines))
    if re.search(r"<(tmx|xliff)\b", content[:2000], re.IGNORECASE):
        raise NmtError(
            f"{path}: is a translation memory or catalogue, not one text",
            "export one side as text, one sentence a line",
        )
    segments = _parse(content, path)
    if not segments and re.match(r"\s*<(url|doc)\b", content, re.IGNORECASE):
        return [[_plain(line) for line in lines if not line.lstrip().startswith("<")]]
    if not segments:
        raise NmtError(
            f"{path}: is SGML or XML markup without <seg> elements",
            "convert it to plain text, one sentence a line",
        )
    roles = {segment.role for segment in segments}
    selected = [s for s in segments if s.role == (role if role in roles else min(roles))]
    sets = [
        [segment for segment in selected if segment.repetition == repetition]
        for repetition in sorted({segment.repetition for segment in selected})
    ]
    if len({tuple(sorted(segment.document for segment in texts)) for texts in sets}) > 1:
        sets = [selected]  # a few equal names of documents, not complete texts
    order = {name: n for n, name in enumerate(dict.fromkeys(s.document for s in sets[0]))}
    if len(sets) > 1:  # all in the order of the first
        sets = [sorted(texts, key=lambda segment: order[segment.document]) for texts in sets]
    return [[segment.text for segment in texts] for texts in sets]


class _Segment(NamedTuple):
    """A segment with its role and how often its document occurred before in this role."""

    role: str
    document: str
    repetition: int
    text: str


def _parse(content: str, path: Path) -> list[_Segment]:
    segments: list[_Segment] = []
    counts: Counter[tuple[str, str]] = Counter()
    set_role, role, document, repetition = "", "", "", 0
    for tag in _TAG.finditer(content):
        if tag["unclosed"]:
            line = content.count("\n", 0, tag.start()) + 1
            raise NmtError(f"{where(path, line)}: <seg> is not closed", "correct this line")
        block = (tag["block"] or "").lower()
        if not block:
            segments.append(_Segment(role, document, repetition, _plain(tag["text"] or "")))
        elif block.endswith("set"):
            set_role = role = _ROLES[block]
        else:
            if block == "doc":
                name = _ID.search(tag["attributes"])
                document = name[1] if name else f"at {tag.start()}"
            role = _ROLES.get(block, set_role)
            repetition = counts[role, document]
            counts[role, document] += 1
    return segments


def _plain(text: str) -> str:
    """Resolve entities, and replace line breaks and runs of white space by one space."""
    return " ".join(_ENTITY.sub(lambda match: html.unescape(match[0]), text).split())
