"""Render HTML pages from the Jinja templates in ``templates/``.

Every page is one file without external assets. Values are escaped by Jinja.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import jinja2
from markupsafe import Markup, escape

from nmt.io.write import replacing
from nmt.viz.protocols import AttentionMap, Flag

MAX_TEXT = 160  # characters of an example sentence
_SPLIT = "<!-- sentences -->"  # where attention.html is cut to be written piece by piece


def render(template: str, **values: Any) -> str:
    """Render a template of ``templates/``; a missing value is an error."""
    return _environment().get_template(template).render(**values)


def inline_svg(svg: bytes, label: str) -> Markup:
    """Return an SVG for inclusion in a page, without its XML declaration."""
    text = svg.decode()
    body = text[text.index("<svg") :]
    return Markup('<div role="img" aria-label="{}">').format(label) + Markup(body + "</div>")


class AttentionPage:
    """An attention page, written one sentence at a time so that its size is not limited."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path) -> Iterator[AttentionPage]:
        """Context manager: write the page; it appears at `path` when it is complete.

        Raises:
            NmtError: the file cannot be written.
        """
        head, tail = render("attention.html").split(_SPLIT)
        with replacing(path) as file:
            file.write(head.encode())
            yield cls(file)
            file.write(tail.encode())

    def add(self, attention: AttentionMap, flags: Sequence[Flag] = ()) -> None:
        """Append one sentence; a blank line without flags is skipped."""
        if attention.words or flags:
            macros: Any = _environment().get_template("macros.html").module
            text = macros.attention_view(attention, flags)
            self._file.write(f"{text}\n".encode())


def shorten(text: str, max_length: int) -> str:
    """Return at most `max_length` characters, the last an ellipsis if text is cut."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def visible(text: str, max_length: int = MAX_TEXT) -> Markup:
    """Return text for a page: shortened, with invisible characters as code points."""
    shown = shorten(text, max_length)
    parts = (
        escape(c) if c.isprintable() else Markup("<code>U+{:04X}</code>").format(ord(c))
        for c in shown
    )
    return Markup("").join(parts) or Markup("<em>empty</em>")


def printable(character: str) -> str:
    """Return the character, or a no-break space if it is not printable."""
    return character if character.isprintable() else "\u00a0"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.fspath(Path(__file__).parent / "templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["visible"] = visible
    environment.filters["printable"] = printable
    return environment
