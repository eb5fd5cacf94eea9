"""Read the built-in sample, the graded sentences of the package ``hsk-sentences-audio``."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

from nmt.errors import NmtError
from nmt.prepare.pair import Pair

_UNTRANSLATED = re.compile(r"placeholder(-[pq]\d+)?")


def read_sentences() -> Generator[Pair, None, None]:
    """Stream the graded sentences; one without a translation has an empty English side."""
    for row in _rows():
        english = row["translation"]["en"]
        yield Pair(row["chinese"], "" if _UNTRANSLATED.fullmatch(english) else english)


def _rows() -> list[dict[str, Any]]:
    try:
        from hsk_sentences_audio import load_sentences
    except ImportError:
        raise NmtError(
            "source hsk: the package hsk-sentences-audio is not installed",
            "pip install 'nmt-zh-en[sample]', or in a clone: pip install -e '.[sample]'",
        ) from None
    rows: list[dict[str, Any]] = load_sentences()
    return rows


_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_MAX_SENSES = 2  # later senses of a gloss are rare


def read_glosses() -> Generator[Pair, None, None]:
    """Stream every word with the first senses of its gloss, once each.

    ``to like; to be fond of`` gives ``like`` and ``be fond of``: sentences use the verb
    without ``to``, and without the explanation in brackets.
    """
    seen: set[tuple[str, str]] = set()
    for row in _rows():
        for token in row["tokens"]:
            word, gloss = token["word"], token["gloss_en"]
            key = (word, gloss)
            if key in seen:
                continue
            seen.add(key)
            for sense in senses(gloss):
                yield Pair(word, sense)


def senses(gloss: str) -> list[str]:
    """Return the first senses of a dictionary gloss without asides and ``to``."""
    bare = (_ASIDE.sub("", sense).strip(" .,") for sense in gloss.split(";"))
    texts = [sense.removeprefix("to ") for sense in bare]
    return [text for text in texts if text][:_MAX_SENSES]
