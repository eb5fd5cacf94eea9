"""The one exception a user is meant to see."""

from __future__ import annotations


class NmtError(Exception):
    """The request or the user's files are at fault, not the program.

    Args:
        message: what is wrong, where first: ``train.en:4132: not valid UTF-8``.
        hint: the next step to try, if there is one to offer.

    The command line prints both and exits with code 2. Anything else that
    escapes is a bug of ours and keeps its traceback.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} (hint: {self.hint})"


def where(path: object, line: int | None = None) -> str:
    """``path:line``, the way every message names a place."""
    return f"{path}" if line is None else f"{path}:{line}"
