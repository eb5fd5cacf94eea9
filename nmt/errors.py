"""The exception for user errors, printed without a traceback."""

from __future__ import annotations

import re

# Control characters except tab and line feed, bidirectional controls, lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape_controls(text: str) -> str:
    r"""Replace characters that a terminal would execute by escapes such as ``\x1b``."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


class NmtError(Exception):
    """The request or the user's files are at fault, not the program.

    Args:
        message: the position and the problem: ``train.en:4132: not valid UTF-8``.
        hint: a command or an action that solves the problem.

    Control characters are escaped, because messages quote data. The command line prints both
    and exits with code 2. Any other exception is a bug and keeps its traceback.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = escape_controls(message)
        self.hint = None if hint is None else escape_controls(hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} (hint: {self.hint})"


def where(path: object, line: int | None = None) -> str:
    """Return a position for a message: ``path:line``."""
    return f"{path}" if line is None else f"{path}:{line}"
