"""Reports of an evaluation: text, Markdown, JSON and an HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nmt.config.load import dump_config
from nmt.errors import NmtError
from nmt.evaluate.gate import FORMAT, Check
from nmt.evaluate.inputs import System, Texts, hash_lines
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import SIGNIFICANT, Comparison, Score, sentence_scores
from nmt.run.journal import read_journal
from nmt.version import __version__
from nmt.viz import html, plots

_MAX_EXAMPLES = 10  # worst and best sentences of the page, each
_MAX_DIFFERENCES = 5  # segments listed for each direction of a comparison
_TESTS = {"bs": "p, bootstrap", "ar": "p, randomisation"}

Report = dict[str, Any]
Comparisons = Sequence[Sequence[Sequence[Comparison]]]  # [tests][systems - 1][metrics]
ByLength = tuple[Sequence[Bucket], Mapping[str, Sequence[Score]]]  # scores by system


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        systems: evaluated systems; the first is the baseline of a comparison.
        texts: test set.
        scores: of each system, one per metric.
        checks: of the gate, for one system.
        comparisons: with the first system, by test, system and metric; None without
            ``--compare``.
        by_length: buckets of source length and scores; None without ``--by-length``.
    """

    systems: Sequence[System]
    texts: Texts
    scores: Sequence[Sequence[Score]]
    checks: Sequence[Check] = field(default_factory=list)
    comparisons: Comparisons | None = None
    by_length: ByLength | None = None

    @property
    def names(self) -> list[str]:
        """Names of the systems."""
        return [system.name for system in self.systems]


def summary(evaluation: Evaluation) -> str:
    """Return the text for a terminal."""
    texts, systems = evaluation.texts, evaluation.systems
    first = evaluation.scores[0]
    if len(systems) == 1:
        lines = [
            f"{score.name} {with_interval(score)}  ({texts.segments} segments; {score.signature})"
            for score in first
        ]
        parts = ["\n".join(lines)]
    else:
        signatures = "\n".join(score.signature for score in first)
        table = score_table(evaluation.names, evaluation.scores)
        parts = [f"{table}\n{texts.segments} segments\n{signatures}"]
    if evaluation.comparisons is not None:
        parts.append(comparison_table(evaluation.names, evaluation.comparisons))
        parts.append(f"* p < {SIGNIFICANT:g}: the difference is significant")
        parts += [_differences_text(systems[0], system, texts) for system in systems[1:]]
    if evaluation.by_length is not None:
        parts.append(length_table(*evaluation.by_length))
    return "\n\n".join(parts)


def markdown(evaluation: Evaluation) -> str:
    """Return the whole evaluation as Markdown, for a job summary or a pull request."""
    texts, checks = evaluation.texts, evaluation.checks
    parts = [
        "## nmt evaluate",
        score_table(evaluation.names, evaluation.scores),
        f"{texts.segments:,} segments, 95 % bootstrap intervals.",
    ]
    if checks:
        results = [["passed" if c.passed else "**failed**", c.name, c.message] for c in checks]
        parts += ["### Gate", format_table(["result", "check", "outcome"], results)]
    if evaluation.comparisons is not None:
        table = comparison_table(evaluation.names, evaluation.comparisons)
        parts += ["### Compared with the first", table]
    if evaluation.by_length is not None:
        parts += ["### By source length", length_table(*evaluation.by_length)]
    details = [f"- `{score.signature}`" for score in evaluation.scores[0]]
    details += [f"- {role} SHA-256 `{digest}`" for role, digest in texts.sha256().items()]
    for system in evaluation.systems:
        details.append(f"- {system.name}: SHA-256 `{hash_lines(system.hypotheses)}`")
        details += [f"  - {key}: `{value}`" for key, value in system.details.items()]
    parts += ["### Reproduce", "\n".join(details)]
    return "\n\n".join(parts) + "\n"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with padded columns; the first is aligned left, the others right."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def with_interval(score: Score) -> str:
    """Return ``26.91 [25.10, 28.72]``."""
    if score.interval is None:
        return f"{score.value:.2f}"
    return f"{score.value:.2f} [{score.interval[0]:.2f}, {score.interval[1]:.2f}]"


def score_table(systems: Sequence[str], scores: Sequence[Sequence[Score]]) -> str:
    """Return a table of systems (rows) and metrics (columns) with 95 % intervals."""
    rows = [[system, *map(with_interval, row)] for system, row in zip(systems, scores, strict=True)]
    return format_table(["system", *(score.name for score in scores[0])], rows)


def length_table(buckets: Sequence[Bucket], scores: Mapping[str, Sequence[Score]]) -> str:
    """Return a table of buckets of source length (rows) and systems (columns)."""
    rows = [
        [
            bucket.label,
            str(len(bucket.members)),
            *(with_interval(row[n]) for row in scores.values()),
        ]
        for n, bucket in enumerate(buckets)
    ]
    metric = next(iter(scores.values()))[0].name
    head = ["source characters", "segments", *(f"{system}, {metric}" for system in scores)]
    return format_table(head, rows)


def comparison_table(names: Sequence[str], comparisons: Comparisons) -> str:
    """Return a table that compares systems with the first of them.

    Args:
        names: of all systems, the baseline first.
        comparisons: by test, by system after the first, and by metric.
    """
    head = ["system", "metric", "score", "difference"]
    head += [_TESTS[by_test[0][0].test] for by_test in comparisons]
    no_test = ["" for _ in comparisons]
    rows = [
        [f"{names[0]} (baseline)", metric.name, f"{metric.baseline:.2f}", "", *no_test]
        for metric in comparisons[0][0]
    ]
    for system, name in enumerate(names[1:]):
        for n, metric in enumerate(comparisons[0][system]):
            p_values = [by_test[system][n].p_value for by_test in comparisons]
            difference = f"{metric.value - metric.baseline:+.2f}"
            cells = [f"{p:.4f}" + (" *" if p < SIGNIFICANT else "") for p in p_values]
            rows.append([name, metric.name, f"{metric.value:.2f}", difference, *cells])
    return format_table(head, rows)


def _differences_text(baseline: System, system: System, texts: Texts) -> str:
    """List the segments in which two systems differ most by chrF2, in both directions."""
    before = sentence_scores(baseline.hypotheses, texts.references)
    after = sentence_scores(system.hypotheses, texts.references)
    gains = [new - old for new, old in zip(after, before, strict=True)]
    order = sorted(range(len(gains)), key=lambda n: (-gains[n], n))
    better = [n for n in order[:_MAX_DIFFERENCES] if gains[n] > 0]
    worse = [n for n in order[::-1][:_MAX_DIFFERENCES] if gains[n] < 0]
    lines = []
    for title, numbers in (("better", better), ("worse", worse)):
        lines.append(f"{system.name} is {title} than {baseline.name}, largest difference in chrF2:")
        for number in numbers:
            lines.append(f"  line {number + 1}")
            if texts.source is not None:
                lines.append(f"    source     {texts.source[number]}")
            lines.append(f"    reference  {texts.references[0][number]}")
            lines.append(f"    {baseline.name}: {baseline.hypotheses[number]}")
            lines.append(f"    {system.name}: {system.hypotheses[number]}")
        if not numbers:
            lines.append("  (none)")
    return "\n".join(lines)


def system_report(evaluation: Evaluation) -> Report:
    """Return ``report.json`` of one system: what is needed to reproduce and compare its scores.

    It contains the hypotheses, so it can serve as the baseline of a paired test.
    """
    (system,), texts = evaluation.systems, evaluation.texts
    return {
        "format": FORMAT,
        "program": __version__,
        "segments": texts.segments,
        "scores": [asdict(score) for score in evaluation.scores[0]],
        "sha256": {**texts.sha256(), "hypotheses": hash_lines(system.hypotheses)},
        "texts": texts.names,
        **system.details,
        "gate": [asdict(check) for check in evaluation.checks],
        "hypotheses": system.hypotheses,
        **_length_report(evaluation.by_length),
    }


def comparison_report(evaluation: Evaluation) -> Report:
    """Return ``comparison.json`` of several systems."""
    rows: list[Report] = []
    for n, system in enumerate(evaluation.systems):
        row: Report = {
            "name": system.name,
            **system.details,
            "sha256": hash_lines(system.hypotheses),
            "scores": [asdict(score) for score in evaluation.scores[n]],
        }
        if evaluation.comparisons is not None and n > 0:
            row["against_first"] = [
                asdict(metric) for by_test in evaluation.comparisons for metric in by_test[n - 1]
            ]
        rows.append(row)
    return {
        "format": FORMAT,
        "program": __version__,
        "segments": evaluation.texts.segments,
        "sha256": evaluation.texts.sha256(),
        "texts": evaluation.texts.names,
        "systems": rows,
        **_length_report(evaluation.by_length),
    }


def _length_report(by_length: ByLength | None) -> Report:
    if by_length is None:
        return {}
    buckets, scores = by_length
    report = {
        "unit": "source characters without white space",
        "buckets": [
            {"low": b.low, "high": b.high, "segments": len(b.members)} for b in buckets
        ],
        "scores": {name: [asdict(score) for score in row] for name, row in scores.items()},
    }  # fmt: skip
    return {"by_length": report}


def html_page(evaluation: Evaluation) -> str:
    """Render the page of one system: one file without external assets.

    A run adds its training curves, data and configuration. Without matplotlib the page has no
    charts.
    """
    (system,), texts = evaluation.systems, evaluation.texts
    with_charts = plots.is_installed()
    return html.render(
        "evaluation.html",
        name=system.name,
        scores=evaluation.scores[0],
        segments=texts.segments,
        checks=evaluation.checks,
        **_lengths(evaluation.by_length, with_charts),
        has_run=system.run is not None,
        **_training(system, with_charts),
        examples=_examples(system, texts),
        data=None if system.run is None else _data(system.run.folder),
        details=_details(system, texts, evaluation.scores[0]),
        config=None if system.run is None else dump_config(system.run.config),
    )


def _lengths(by_length: ByLength | None, with_charts: bool) -> Report:
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


def _training(system: System, with_charts: bool) -> Report:
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


def _examples(system: System, texts: Texts) -> list[tuple[str, list[Report]]]:
    scores = sentence_scores(system.hypotheses, texts.references)
    order = sorted(range(len(scores)), key=lambda n: (scores[n], n))
    return [
        (title, [_sentence(system, texts, n, scores[n]) for n in numbers[:_MAX_EXAMPLES]])
        for title, numbers in (("Worst", order), ("Best", order[::-1]))
    ]


def _sentence(system: System, texts: Texts, number: int, score: float) -> Report:
    fields = [("reference", lines[number]) for lines in texts.references]
    fields.append(("translation", system.hypotheses[number]))
    if texts.source is not None:
        fields.insert(0, ("source", texts.source[number]))
    return {
        "score": score,
        "line": number + 1,
        "summary": fields[0][1] if texts.source is not None else system.hypotheses[number],
        "fields": fields,
        "attention": system.translations[number].part_maps if system.translations else [],
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
    rows.append(("hypotheses, SHA-256", hash_lines(system.hypotheses)))
    rows += [(key, str(value)) for key, value in system.details.items()]
    return rows
