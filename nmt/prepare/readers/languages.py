"""Recognise Chinese and English language codes."""

from __future__ import annotations

import re

_CHINESE = {"zh", "zho", "chi", "cmn", "yue", "chs", "cht"}
_ENGLISH = {"en", "eng"}


def side_of(language: str | None) -> str | None:
    """Return ``zh`` or ``en`` for a code such as ``zh_Hant`` or ``EN-us``, else None."""
    base = re.split("[-_]", (language or "").lower())[0]
    return "zh" if base in _CHINESE else "en" if base in _ENGLISH else None
