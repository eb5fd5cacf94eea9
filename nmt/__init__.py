"""Chinese to English neural machine translation: a GRU encoder, attention, and a decoder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nmt.version import __version__

__all__ = ["NmtError", "Translation", "Translator", "__version__"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent as a library

if TYPE_CHECKING:
    from nmt.errors import NmtError
    from nmt.translate.translator import Translator
    from nmt.translate.types import Translation


def __getattr__(name: str) -> object:
    # Imported on first use: `nmt --help` must not wait for torch.
    if name == "Translator":
        from nmt.translate.translator import Translator

        return Translator
    if name == "Translation":
        from nmt.translate.types import Translation

        return Translation
    if name == "NmtError":
        from nmt.errors import NmtError

        return NmtError
    raise AttributeError(f"module 'nmt' has no attribute {name!r}")
