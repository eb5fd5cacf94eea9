"""Messages on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TextIO

from nmt.errors import NmtError


def say(message: str) -> None:
    """One line on stderr, above a progress bar if there is one. stdout is for results.

    Of several workers only the first speaks. A terminal that has gone away is no reason to
    end a training, so a line that can't be written is lost.
    """
    from tqdm import tqdm

    if os.environ.get("RANK", "0") == "0":
        try:
            tqdm.write(message, file=sys.stderr)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # nobody reads it any more
                with contextlib.suppress(OSError):
                    leave(sys.stderr)


def leave(stream: TextIO) -> None:
    """Write nothing more to stdout or stderr, whose reader is gone or whose disk is full.

    Python would complain at exit of what it still holds.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def warn(message: str) -> None:
    """As `say`, for what the user should look at."""
    say(f"warning: {message}")


def print_text(text: str, *, err: bool = False) -> None:
    """Print a result on stdout, or on stderr. A closed pipe (head, less) is ignored.

    Raises:
        NmtError: stdout cannot be written, for example because the disk is full.
    """
    stream = sys.stderr if err else sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        leave(stream)
        if not err and not isinstance(error, BrokenPipeError):
            reason = error.strerror
            raise NmtError(f"standard output: cannot be written ({reason})") from error
