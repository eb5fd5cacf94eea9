"""Format a translation: a line of text, an n-best list, a JSON object, an attention grid."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from nmt.align.links import pharaoh
from nmt.translate.attention_map import AttentionMap
from nmt.translate.request import AlignFormat
from nmt.translate.translator import Translator
from nmt.translate.types import Translation

_SHADES = " ░▒▓█"
_MIN_WEIGHT = 0.05  # smaller weights are blank in a grid


def plain(
    translation: Translation, attention: AttentionMap | None, align: AlignFormat | None
) -> str:
    """Return the translation, with its alignment after ``|||`` if `align` is set."""
    if align is None:
        return translation.text
    if align == "pharaoh":
        return f"{translation.text} ||| {pharaoh(translation.links, one_based=False)}"
    return f"{translation.text} ||| {_json(soft(attention))}"


def n_best(translation: Translation, number: int) -> list[str]:
    """Return n-best lines in Moses' format: line number from 0, text, score.

    A blank line has one blank candidate.
    """
    if not translation.candidates:
        return [f"{number} |||  ||| 0.0000"]
    return [
        f"{number} ||| {candidate.text} ||| {candidate.score:.4f}"
        for candidate in translation.candidates
    ]


def soft(attention: AttentionMap | None) -> dict[str, Any] | None:
    """Return characters, words and weights `[words][characters]`; None without a map."""
    if attention is None:
        return None
    return {
        "characters": attention.characters,
        "words": attention.words,
        "weights": [[round(float(weight), 4) for weight in row] for row in attention.weights],
    }


def record(
    translator: Translator,
    translation: Translation,
    attention: AttentionMap | None,
    align: AlignFormat | None,
    candidates: bool,
) -> str:
    """Return a JSON object on one line.

    Keys: source, translation, score, log_prob (nats), pieces (source and target),
    alignment (pairs of source character and target word, from 0), flags (name and detail).

    Args:
        translator: for the text of the pieces.
        translation: the translation.
        attention: its attention map; None if the line is too long.
        align: ``soft`` adds the key attention.
        candidates: add the key candidates, the n-best list.
    """
    values: dict[str, Any] = {
        "source": translation.source,
        "translation": translation.text,
        "score": round(translation.score, 6),
        "log_prob": round(translation.log_prob, 6),
        "pieces": _pieces(translator, translation),
        "alignment": translation.links,
        "flags": [{"name": flag.name, "detail": flag.detail} for flag in translation.flags],
    }
    if align == "soft":
        values["attention"] = soft(attention)
    if candidates:
        values["candidates"] = [
            {
                "translation": candidate.text,
                "score": round(candidate.score, 6),
                "log_prob": round(candidate.log_prob, 6),
            }
            for candidate in translation.candidates
        ]
    return _json(values)


def _pieces(translator: Translator, translation: Translation) -> dict[str, list[str]]:
    src, trg = translator.src, translator.trg
    return {
        "source": [src.piece(p.id) for part in translation.parts for p in part.pieces],
        "target": [trg.piece(i) for part in translation.parts for i in part.hypotheses[0].ids],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def grid(attention: AttentionMap, columns: int = 80) -> str:
    """Return attention as text: characters across, words down, darker for larger weights.

    Args:
        attention: the matrix.
        columns: width of the terminal; a longer source is drawn in several grids.
    """
    label_width = max(map(text_width, attention.words), default=0)
    cells = max(4, (columns - label_width - 2) // 2)
    blocks = [
        _block(attention, label_width, start, start + cells)
        for start in range(0, len(attention.characters), cells)
    ]
    return "\n\n".join(blocks)


def text_width(text: str) -> int:
    """Return the terminal columns of `text`: two for a Chinese or full-width character."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _block(attention: AttentionMap, label_width: int, start: int, stop: int) -> str:
    header = "".join(map(_two_columns, attention.characters[start:stop]))
    lines = [" " * (label_width + 2) + header.rstrip()]
    for word, row in zip(attention.words, attention.weights, strict=True):
        shades = "".join(_shade(float(weight)) * 2 for weight in row[start:stop])
        lines.append(" " * (label_width - text_width(word)) + f"{word}  {shades}".rstrip())
    return "\n".join(lines)


def _two_columns(character: str) -> str:
    visible = character if character.isprintable() and text_width(character) else " "
    return visible + " " * (2 - text_width(visible))


def _shade(weight: float) -> str:
    if weight < _MIN_WEIGHT:
        return _SHADES[0]
    return _SHADES[min(len(_SHADES) - 1, 1 + int(weight * 4))]
