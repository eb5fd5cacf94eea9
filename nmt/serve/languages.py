"""Language codes of the interface, and detection of Chinese by its characters."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from nmt.text.normalise import HAN, normalise

_UNITS = re.compile(rf"(?P<han>{HAN})|(?P<latin>[A-Za-z\u00c0-\u024f]+)|(?P<other>[^\W\d_])")
_SYMBOLS = {"So", "Sk", "Sm", "Mn", "Me", "Cf", "Zs"}


@dataclass(frozen=True)
class Language:
    """A language as ``/languages`` lists it."""

    code: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} ({self.code})"


ENGLISH = Language("en", "English")
CHINESE = Language("zh", "Chinese")
SIMPLIFIED = Language("zh-Hans", "Chinese (Simplified)")
TRADITIONAL = Language("zh-Hant", "Chinese (Traditional)")
LANGUAGES = (ENGLISH, CHINESE, SIMPLIFIED, TRADITIONAL)
_CODES = {
    **{language.code.lower(): language for language in LANGUAGES},
    "zt": TRADITIONAL,
    "zh-cn": SIMPLIFIED,
    "zh-sg": SIMPLIFIED,
    "zh-tw": TRADITIONAL,
    "zh-hk": TRADITIONAL,
    "zh-mo": TRADITIONAL,
}


@dataclass(frozen=True)
class Detection:
    """A detected language; `confidence` is 0 to 100."""

    language: Language
    confidence: float

    def as_json(self) -> dict[str, float | str]:
        """Return the object that ``/detect`` and ``detectedLanguage`` contain."""
        return {"confidence": self.confidence, "language": self.language.code}


def find_language(code: str) -> Language | None:
    """Return the language of a code, in any case, with ``-`` or ``_``."""
    return _CODES.get(code.lower().replace("_", "-"))


def targets(language: Language) -> list[str]:
    """Return the codes of the languages that `language` can be translated into."""
    return [ENGLISH.code] if language == ENGLISH else [ENGLISH.code, language.code]


def detect(text: str) -> Detection:
    """Detect Chinese by the share of Chinese characters.

    Each Chinese character, Latin word and letter of another script counts as one unit. The
    confidence is the share of the detected language. Text without Chinese or Latin letters is
    ``en`` with confidence 0.
    """
    counts = {"han": 0, "latin": 0, "other": 0}
    for match in _UNITS.finditer(text):
        counts[match.lastgroup or "other"] += 1
    total = sum(counts.values())
    if not total:
        return Detection(ENGLISH, 0.0)
    if counts["han"] < counts["latin"] + counts["other"] or not counts["han"]:
        return Detection(ENGLISH, round(100 * counts["latin"] / total, 1))
    plain = normalise(text, simplify=False)
    simplified = normalise(text, simplify=True) == plain
    return Detection(
        SIMPLIFIED if simplified else TRADITIONAL, round(100 * counts["han"] / total, 1)
    )


def is_symbolic(text: str) -> bool:
    """Whether a text has only emoji, other symbols and white space, and so no translation."""
    return all(c.isspace() or unicodedata.category(c) in _SYMBOLS for c in text)
