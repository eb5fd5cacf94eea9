"""Chinese to English neural machine translation: a GRU encoder, attention, and a decoder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nmt.version import __version__

__all__ = ["NmtError", "Translation", "Translator", "__version__"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent as a library

if TYPE_CHECKING:
    from nmt.errors import NmtError
    from nmt.translate.translator import Translation, Translator


def __getattr__(name: str) -> object:
    # Imported on first use: `nmt --help` must not wait for torch.
    if name in ("Translator", "Translation"):
        from nmt.translate import translator

        return getattr(translator, name)
    if name == "NmtError":
        from nmt.errors import NmtError

        return NmtError
    raise AttributeError(f"module 'nmt' has no attribute {name!r}")
