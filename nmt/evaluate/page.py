"""The HTML page of an evaluation: scores, training curves, worst and best sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.config.load import dump_config
from nmt.errors import NmtError
from nmt.evaluate.inputs import System, Texts
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Score, sentence_scores
from nmt.evaluate.tables import with_interval
from nmt.evaluate.texts import texts_sha256
from nmt.run.journal import read_journal
from nmt.version import __version__
from nmt.viz import html, plots

if TYPE_CHECKING:
    from nmt.evaluate.gate import Check

_MAX_EXAMPLES = 10  # worst and best sentences, each

ByLength = tuple[Sequence[Bucket], Mapping[str, Sequence[Score]]]


def report_page(
    system: System,
    texts: Texts,
    scores: Sequence[Score],
    checks: Sequence[Check],
    by_length: ByLength | None,
) -> str:
    """Render the page: one file without external assets. Without matplotlib it has no charts.

    Args:
        system: evaluated; a run adds its training curves, data and configuration.
        texts: scored on.
        scores: of the system.
        checks: of the gate.
        by_length: scores by source length, None without a source.
    """
    with_charts = plots.is_installed()
    return html.render(
        "evaluation.html",
        name=system.name,
        scores=scores,
        segments=texts.segments,
        checks=checks,
        **_lengths(by_length, with_charts),
        has_run=system.run is not None,
        **_training(system, with_charts),
        examples=_examples(system, texts),
        data=None if system.run is None else _data(system.run.folder),
        details=_details(system, texts, scores),
        config=None if system.run is None else dump_config(system.run.config),
    )


def _lengths(by_length: ByLength | None, with_charts: bool) -> dict[str, Any]:
    if by_length is None:
        return {"buckets": [], "length_chart": None, "bucket_metric": ""}
    buckets, scores = by_length
    row = next(iter(scores.values()))
    chart = None
    if with_charts:
        picture = plots.length_chart([bucket.title for bucket in buckets], scores)
        chart = html.inline_svg(picture, f"{row[0].name} by source length, as in the table below")
    return {
        "buckets": [
            (bucket.label, len(bucket.members), with_interval(score))
            for bucket, score in zip(buckets, row, strict=True)
        ],
        "length_chart": chart,
        "bucket_metric": row[0].name,
    }


def _training(system: System, with_charts: bool) -> dict[str, Any]:
    """Return the training curves, or the reason why there are none."""
    curves: list[tuple[str, Any]] = []
    reason = "the run has no journal"
    if not with_charts:
        reason = f"matplotlib is not installed ({plots.INSTALL})"
    elif system.run is not None:
        curves = [
            (title, html.inline_svg(picture, f"{title} over updates"))
            for title, picture in plots.training_panels(read_journal(system.run.folder))
        ]
    return {"curves": curves, "no_curves": reason}


def _examples(system: System, texts: Texts) -> list[tuple[str, list[dict[str, Any]]]]:
    scores = sentence_scores(system.hypotheses, texts.references)
    order = sorted(range(len(scores)), key=lambda n: (scores[n], n))
    return [
        (title, [_sentence(system, texts, n, scores[n]) for n in numbers[:_MAX_EXAMPLES]])
        for title, numbers in (("Worst", order), ("Best", order[::-1]))
    ]


def _sentence(system: System, texts: Texts, number: int, score: float) -> dict[str, Any]:
    fields = [("reference", lines[number]) for lines in texts.references]
    fields.append(("translation", system.hypotheses[number]))
    if texts.source is not None:
        fields.insert(0, ("source", texts.source[number]))
    attention = []
    if system.translator is not None:
        attention = system.translations[number].part_maps
    return {
        "score": score,
        "line": number + 1,
        "summary": fields[0][1] if texts.source is not None else system.hypotheses[number],
        "fields": fields,
        "attention": attention,
    }


def _data(folder: Path) -> list[tuple[str, str]]:
    """Return the corpus counts of the run's manifest, of any format; empty without one."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise NmtError(f"{path}: missing or damaged ({error})") from error
    rows = [(f"read, {name}", f"{n:,}") for name, n in manifest.get("read", {}).items()]
    rows += [(f"dropped, {reason}", f"{n:,}") for reason, n in manifest.get("dropped", {}).items()]
    for name in ("train", "dev", "test"):
        rows.append((f"kept, {name}", f"{manifest.get(name, {}).get('pairs', 0):,}"))
    for side, tokenizer in manifest.get("tokenizers", {}).items():
        rows.append((f"vocabulary, {side}", f"{tokenizer['pieces']:,} pieces"))
    return rows


def _details(system: System, texts: Texts, scores: Sequence[Score]) -> list[tuple[str, str]]:
    rows = [("program", f"nmt {__version__}")]
    rows += [(score.name, score.signature) for score in scores]
    rows += [(f"{role}, SHA-256", digest) for role, digest in texts.sha256().items()]
    rows.append(("hypotheses, SHA-256", texts_sha256(system.hypotheses)))
    rows += [(key, str(value)) for key, value in system.details.items()]
    return rows
