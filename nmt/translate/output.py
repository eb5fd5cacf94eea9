"""A translation as a line of text, an n-best list, or a JSON object."""

from __future__ import annotations

import json
from typing import Any

from nmt.align.links import pharaoh
from nmt.translate.attention_map import AttentionMap
from nmt.translate.request import AlignFormat
from nmt.translate.translator import Translator
from nmt.translate.types import Translation


def plain(
    translation: Translation,
    alignment: AttentionMap | None,
    align: AlignFormat | None,
) -> str:
    """Return the translation, with its alignment after ``|||`` if `align` is set."""
    if align is None:
        return translation.text
    if align == "pharaoh":
        return f"{translation.text} ||| {pharaoh(translation.links, one_based=False)}"
    return f"{translation.text} ||| {_json(soft(alignment))}"


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


def soft(alignment: AttentionMap | None) -> dict[str, Any] | None:
    """Return characters, words and weights `[words][characters]`; None without a map."""
    if alignment is None:
        return None
    return {
        "characters": alignment.characters,
        "words": alignment.words,
        "weights": [[round(float(w), 4) for w in row] for row in alignment.weights],
    }


def record(
    translator: Translator,
    translation: Translation,
    alignment: AttentionMap | None,
    align: AlignFormat | None,
    candidates: bool,
) -> str:
    """Return one JSON object on one line.

    Keys: source, translation, score, log_prob (nats), pieces (source and target),
    alignment (pairs of character and word, from 0), flags (name and detail); attention
    if `align` is soft, null for a line too long; candidates if `candidates`.
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
        values["attention"] = soft(alignment)
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
