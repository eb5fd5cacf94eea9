"""Run ``nmt translate``: read lines, translate, write text and attention."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from tqdm import tqdm

from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.io.write import write_whole, writing_lines
from nmt.options import none_if_stdout
from nmt.translate.attention_map import AttentionMap
from nmt.translate.output import grid, n_best, plain, record
from nmt.translate.request import Request
from nmt.translate.streams import argument_lines, arriving_lines, file_lines
from nmt.translate.translator import Translator
from nmt.translate.types import Translation
from nmt.viz.html import AttentionPage
from nmt.viz.plots import attention_chart

logger = logging.getLogger(__name__)

AddAttention = Callable[[AttentionMap, Translation], None]

_MAX_SVG_SENTENCES = 50
_MIN_WINDOW_LINES, _MAX_WINDOW_LINES = 64, 2048  # lines that finish together
_MAX_CELLS = 1 << 22  # of a line's attention matrix: 2,000 characters by 2,000 words


def run(translator: Translator, request: Request) -> None:
    """Translate the input of `request`; write translations and attention.

    Raises:
        NmtError: the input cannot be read, or an output cannot be written.
    """
    with contextlib.ExitStack() as stack:
        # Entered first: the attention is written even if the reader of stdout stops early.
        add_attention = stack.enter_context(_writing_attention(request))
        write, flush = stack.enter_context(writing_lines(none_if_stdout(request.output)))
        bar = stack.enter_context(_progress(request))
        number = itertools.count()
        windows = _windows(request)
        for window in windows if bar.disable else _timed_windows(windows):
            for translation in translator.stream(window, request.batch_size, request.n_best or 1):
                index = next(number)
                attention = _attention_map(request, translation, index)
                for line in _lines(translator, request, translation, attention, index):
                    write(line)
                _log_notes(translator, request, translation, index)
                if attention is not None and request.show_attention:
                    logger.info(grid(attention, shutil.get_terminal_size().columns))
                if attention is not None:
                    add_attention(attention, translation)
                bar.update()
            flush()
            bar.refresh()


@contextlib.contextmanager
def _writing_attention(request: Request) -> Iterator[AddAttention]:
    """Context manager: a function that adds one line to ``--attention``; written on success.

    Raises:
        NmtError: the file cannot be written; too many sentences for an SVG, or none.
    """
    path = request.attention
    if path is None:
        yield lambda *_: None
    elif request.attention_format == ".html":
        with AttentionPage.writing(path) as page:

            def add_section(attention: AttentionMap, translation: Translation) -> None:
                page.add(attention, translation.flags)

            yield add_section
    else:
        maps: list[AttentionMap] = []

        def add_map(attention: AttentionMap, translation: Translation) -> None:
            if translation.text:
                maps.append(attention)
            if len(maps) > _MAX_SVG_SENTENCES:
                raise NmtError(
                    f"{path}: an SVG holds at most {_MAX_SVG_SENTENCES} sentences",
                    "an HTML page holds any number: --attention attention.html",
                )

        yield add_map
        if not maps:
            raise NmtError(f"{path}: no attention to draw: all lines are blank")
        write_whole(path, attention_chart(maps))


def _windows(request: Request) -> Iterator[Iterable[str]]:
    """Yield windows of input lines; the output is flushed after each."""
    if request.texts:
        return argument_lines(request.texts, request.errors)
    if request.input is not None:
        return iter([file_lines(request.input, request.errors)])
    if sys.stdin is None:
        raise NmtError("standard input is closed", "name a file with --input, or give the text")
    if sys.stdin.isatty():
        logger.info("one sentence per line, Ctrl-D to end")
    return arriving_lines(sys.stdin.fileno(), request.errors)


def _timed_windows(windows: Iterable[Iterable[str]]) -> Iterator[Iterable[str]]:
    """Divide windows into smaller ones, so that the progress bar moves about once a second.

    The lines of a window finish together. The first window is small; the size doubles while a
    window takes less than a second. Each window must be read to its end before the next.
    """
    size = _MIN_WINDOW_LINES
    for lines in windows:
        iterator = iter(lines)
        for first in iterator:
            start = time.monotonic()
            yield itertools.chain([first], itertools.islice(iterator, size - 1))
            if time.monotonic() - start < 1:
                size = min(2 * size, _MAX_WINDOW_LINES)


def _lines(
    translator: Translator,
    request: Request,
    translation: Translation,
    attention: AttentionMap | None,
    index: int,
) -> list[str]:
    """Return the output lines of one input line."""
    if request.json:
        with_candidates = request.n_best is not None
        return [record(translator, translation, attention, request.align, with_candidates)]
    if request.n_best is not None:
        return n_best(translation, index)
    return [plain(translation, attention, request.align)]


def _attention_map(request: Request, translation: Translation, index: int) -> AttentionMap | None:
    """Return the attention map of a line if an option needs it and its size allows."""
    if not request.shows_attention and request.align != "soft":
        return None
    if len(translation.text.split()) * len(translation.source) > _MAX_CELLS:
        logger.info(f"note: line {index + 1:,}: attention matrix omitted: line too long")
        return None
    return translation.attention_map


def _log_notes(
    translator: Translator, request: Request, translation: Translation, index: int
) -> None:
    parts = translation.parts
    if len(parts) > 1 and sum(len(part.pieces) for part in parts) > translator.max_pieces:
        logger.info(
            f"note: line {index + 1:,} of {len(translation.source):,} characters was translated "
            f"in {len(parts):,} parts"
        )
    if request.flags:
        for flag in translation.flags:
            logger.info(f"flag: line {index + 1:,}: {flag.name}: {flag.detail}")


def _progress(request: Request) -> tqdm[Any]:
    """Return a progress bar on stderr, disabled if it would mix with lines on a terminal."""
    path = None if str(request.input) == "-" else request.input
    shown = (
        _is_terminal(sys.stderr)
        and not request.texts
        and not (none_if_stdout(request.output) is None and _is_terminal(sys.stdout))
        and not (path is None and _is_terminal(sys.stdin))
    )
    total = None
    if shown and path is not None and path.is_file():  # a pipe can be read only once
        total = sum(1 for _ in read_lines(path, errors="replace"))
    return tqdm(total=total, unit=" lines", disable=not shown)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()  # None: closed before the start
