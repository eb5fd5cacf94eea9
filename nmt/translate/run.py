"""Translate lines as ``nmt translate`` was asked to; write text and attention."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.io.write import writing_lines
from nmt.options import none_if_stdout
from nmt.translate import output as formats
from nmt.translate.attention_map import AttentionMap
from nmt.translate.request import Request
from nmt.translate.streams import argument_lines, arriving_lines, file_lines
from nmt.translate.translator import Translator
from nmt.translate.types import Translation
from nmt.translate.views import grid
from nmt.viz.html import AttentionPage

logger = logging.getLogger(__name__)

_MAX_DRAWN = 50  # sentences in one picture
_MAX_CELLS = 1 << 22  # of a matrix: two thousand characters and as many words


def run(translator: Translator, request: Request) -> None:
    """Translate what was asked for.

    Raises:
        NmtError: input that can't be read, output that can't be written.
    """
    drawn: list[AttentionMap] = []
    with contextlib.ExitStack() as stack:
        # Outside, so that a reader who has read enough lines does not cost the page.
        page = (
            None
            if request.html is None
            else stack.enter_context(AttentionPage.writing(request.html))
        )
        write, flush = stack.enter_context(writing_lines(none_if_stdout(request.output)))
        bar = stack.enter_context(_progress(request))
        number = itertools.count()
        for window in _windows(request):
            for translation in translator.stream(window, request.batch_size, request.n_best or 1):
                at = next(number)
                alignment = _alignment(request, translation, at)
                for line in _lines(translator, request, translation, alignment, at):
                    write(line)
                _notes(translator, request, translation, at)
                if alignment is not None and request.draws:
                    if request.show_attention:
                        logger.info(grid(alignment, shutil.get_terminal_size().columns))
                    if page is not None:
                        page.add(alignment, translation.flags)
                    if request.pictures and translation.text:
                        drawn.append(alignment)
                        _check_drawable(len(drawn))
                bar.update()
            flush()
    if request.pictures:
        from nmt.translate.plots import draw

        for kind, path in request.pictures.items():
            draw(drawn, path, kind)


def _windows(request: Request) -> Iterator[Iterable[str]]:
    if request.texts:
        return argument_lines(request.texts, request.errors)
    if request.input is not None:
        return iter([file_lines(request.input, request.errors)])
    if sys.stdin is None:
        raise NmtError("standard input is closed", "name a file with --input, or give the text")
    if sys.stdin.isatty():
        logger.info("one sentence a line, Ctrl-D to end")
    return arriving_lines(sys.stdin.fileno(), request.errors)


def _lines(
    translator: Translator,
    request: Request,
    translation: Translation,
    alignment: AttentionMap | None,
    number: int,
) -> list[str]:
    if request.json:
        many = request.n_best is not None
        return [formats.record(translator, translation, alignment, request.align, many)]
    if request.n_best is not None:
        return formats.n_best(translation, number)
    return [formats.plain(translation, alignment, request.align)]


def _alignment(request: Request, translation: Translation, number: int) -> AttentionMap | None:
    """Return the attention map of a line if an option needs it and its size allows."""
    if not request.draws and request.align != "soft":
        return None
    cells = len(translation.text.split()) * len(translation.source)
    if cells > _MAX_CELLS:
        logger.info(f"note: line {number + 1:,}: attention matrix omitted: line too long")
        return None
    return translation.attention_map


def _notes(translator: Translator, request: Request, translation: Translation, at: int) -> None:
    parts = translation.parts
    if len(parts) > 1 and sum(len(part.pieces) for part in parts) > translator.max_pieces:
        logger.info(
            f"note: line {at + 1:,} of {len(translation.source):,} characters was translated in "
            f"{len(translation.parts):,} parts"
        )
    if request.flags:
        for flag in translation.flags:
            logger.info(f"flag: line {at + 1:,}: {flag.name}: {flag.detail}")


def _check_drawable(count: int) -> None:
    if count > _MAX_DRAWN:
        raise NmtError(
            f"an SVG holds at most {_MAX_DRAWN} sentences",
            "--attention-html FILE takes any number",
        )


def _progress(request: Request) -> tqdm[Any]:
    """A bar on stderr where it can be seen and does not come between lines on a terminal."""
    shown = _is_terminal(sys.stderr) and not request.texts
    shown = shown and not (none_if_stdout(request.output) is None and _is_terminal(sys.stdout))
    given = None if str(request.input) == "-" else request.input
    shown = shown and not (given is None and _is_terminal(sys.stdin))
    total = None
    # What is no file can be read only once.
    if shown and given is not None and given.is_file():
        total = sum(1 for _ in read_lines(given, errors="replace"))
    return tqdm(total=total, unit=" lines", disable=not shown)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None: it was closed from the start
