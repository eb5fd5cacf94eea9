"""Results on stdout, messages on stderr.

The modules log to ``logging.getLogger(__name__)``; the command line installs one handler.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from typing import TextIO

from nmt.errors import NmtError, escape_controls


class StderrHandler(logging.Handler):
    """Write messages to stderr, above progress bars. A closed stderr is ignored."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message, with its level if it is a warning or worse."""
        from tqdm import tqdm

        message = escape_controls(record.getMessage())
        if record.levelno >= logging.WARNING:
            message = f"{record.levelname.lower()}: {message}"
        try:
            tqdm.write(message, file=sys.stderr)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # the reader or the terminal is gone
                with contextlib.suppress(OSError):
                    discard_output(sys.stderr)


def install_handler() -> None:
    """Show the messages of the package on stderr; with several workers, those of rank 0."""
    logger = logging.getLogger("nmt")
    if os.environ.get("RANK", "0") == "0" and not any(
        isinstance(handler, StderrHandler) for handler in logger.handlers
    ):
        logger.addHandler(StderrHandler())
        logger.setLevel(logging.INFO)


def discard_output(stream: TextIO) -> None:
    """Redirect stdout or stderr to the null device, after its reader or its disk failed.

    Otherwise Python reports an error at exit, when it flushes what is buffered.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_text(text: str) -> None:
    """Print a result on stdout. A closed pipe (head, less) is ignored.

    Raises:
        NmtError: stdout cannot be written, for example because the disk is full.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        discard_output(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            reason = error.strerror
            raise NmtError(f"standard output: cannot be written ({reason})") from error
