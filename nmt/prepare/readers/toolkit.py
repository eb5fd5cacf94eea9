"""Parse a file with translate-toolkit, which holds the whole file in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.io.read import Meter, damaged, is_damage, open_bytes


def parse_file(
    path: Path, kind: str, parse: Callable[[bytes], Any], meter: Meter | None = None
) -> Any:
    """Return the translate-toolkit store that `parse` makes of the bytes of a file.

    Raises:
        NmtError: the package is missing, or the file is not of this kind.
    """
    try:
        import translate.storage  # noqa: F401
    except ImportError:
        raise NmtError(
            f"{path}: reading {kind} needs the package translate-toolkit",
            "pip install 'nmt-zh-en[formats]', or in a clone: pip install -e '.[formats]'",
        ) from None
    with open_bytes(path, meter) as file:
        try:
            content = file.read()
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, 0, error) from error
    try:
        return parse(content)
    except Exception as error:  # each format of the toolkit raises its own exceptions
        raise NmtError(f"{path}: not readable as {kind} ({error})") from error


def strings(text: Any) -> list[Any]:
    """Return the plural forms of a toolkit string, or the string itself."""
    return list(getattr(text, "strings", [])) or [text or ""]
