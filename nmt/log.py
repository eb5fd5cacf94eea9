"""Messages on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    pass


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
