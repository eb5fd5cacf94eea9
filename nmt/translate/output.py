"""A translation as a line of text, an n-best list, or a JSON object."""

from __future__ import annotations

import json
from typing import Any

from nmt.align.links import pharaoh
from nmt.translate.attention_map import Alignment
from nmt.translate.request import AlignFormat
from nmt.translate.translator import Translation, Translator


def plain(
    translator: Translator,
    translation: Translation,
    alignment: Alignment | None,
    align: AlignFormat | None,
) -> str:
    """The translation; behind ``|||`` what its words stand for, if that was asked for."""
    if align is None:
        return translation.text
    if align == "pharaoh":
        return f"{translation.text} ||| {pharaoh(translator.links(translation), one_based=False)}"
    return f"{translation.text} ||| {_json(soft(alignment))}"


def n_best(translation: Translation, number: int) -> list[str]:
    """Moses' n-best lines: number of the source line from 0, text, score.

    A blank line has one, so that no number is left out.
    """
    if not translation.candidates:
        return [f"{number} |||  ||| 0.0000"]
    return [f"{number} ||| {one.text} ||| {one.score:.4f}" for one in translation.candidates]


def soft(alignment: Alignment | None) -> dict[str, Any] | None:
    """Characters, words, and the weights `[words][characters]`; None of a line too long."""
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
    alignment: Alignment | None,
    align: AlignFormat | None,
    candidates: bool,
) -> str:
    """One JSON object on one line.

    Keys: source, translation, score, log_prob (nats), pieces (source and target),
    alignment (pairs of character and word, from 0), flags (name and detail); attention
    with `align` soft, null of a line too long for it; candidates if asked for.
    """
    values: dict[str, Any] = {
        "source": translation.source,
        "translation": translation.text,
        "score": round(translation.score, 6),
        "log_prob": round(translation.log_prob, 6),
        "pieces": _pieces(translator, translation),
        "alignment": translator.links(translation),
        "flags": [
            {"name": flag.name, "detail": flag.detail} for flag in translator.flags(translation)
        ],
    }
    if align == "soft":
        values["attention"] = soft(alignment)
    if candidates:
        values["candidates"] = [
            {
                "translation": one.text,
                "score": round(one.score, 6),
                "log_prob": round(one.log_prob, 6),
            }
            for one in translation.candidates
        ]
    return _json(values)


def _pieces(translator: Translator, translation: Translation) -> dict[str, list[str]]:
    src, trg = translator.src, translator.trg
    return {
        "source": [src.piece(i) for part in translation.parts for i in src.encode(part.source)],
        "target": [trg.piece(i) for part in translation.parts for i in part.hypotheses[0].ids],
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
