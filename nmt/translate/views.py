"""Attention made visible in a terminal."""

from __future__ import annotations

import unicodedata

from nmt.translate.attention_map import AttentionMap

_SHADES = " ░▒▓█"
_LEAST = 0.05  # weights below this stay blank


def text_width(text: str) -> int:
    """Terminal columns that `text` takes: two for Chinese and full-width characters."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def grid(alignment: AttentionMap, columns: int = 80) -> str:
    """The alignment as a grid: characters across, words down, darker is more.

    Args:
        alignment: to draw.
        columns: of the terminal; a longer source is drawn in several grids.
    """
    label = max(map(text_width, alignment.words), default=0)
    cells = max(4, (columns - label - 2) // 2)
    blocks = [
        _block(alignment, label, start, min(start + cells, len(alignment.characters)))
        for start in range(0, len(alignment.characters), cells)
    ]
    return "\n\n".join(blocks)


def _block(alignment: AttentionMap, label: int, start: int, stop: int) -> str:
    head = "".join(_two_columns(c) for c in alignment.characters[start:stop])
    lines = [" " * (label + 2) + head.rstrip()]
    for word, row in zip(alignment.words, alignment.weights, strict=True):
        shades = "".join(_shade(float(weight)) * 2 for weight in row[start:stop])
        lines.append(" " * (label - text_width(word)) + f"{word}  {shades}".rstrip())
    return "\n".join(lines)


def _two_columns(character: str) -> str:
    visible = character if character.isprintable() and text_width(character) else " "
    return visible + " " * (2 - text_width(visible))


def _shade(weight: float) -> str:
    if weight < _LEAST:
        return _SHADES[0]
    return _SHADES[min(len(_SHADES) - 1, 1 + int(weight * 4))]
