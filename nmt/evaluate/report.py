"""The report of an evaluation: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nmt.errors import NmtError
from nmt.evaluate.gate import FORMAT, Check
from nmt.evaluate.inputs import System, Texts
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Comparison, Score, sentence_scores
from nmt.evaluate.tables import comparison_table, length_table, score_table, table
from nmt.evaluate.texts import texts_sha256
from nmt.io.write import write_text, write_whole, writing_to
from nmt.version import __version__

logger = logging.getLogger(__name__)

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

Report = dict[str, Any]


def make_report(
    scores: Sequence[Score], texts: Texts, system: System, checks: Sequence[Check] = ()
) -> Report:
    """All that is needed to trust, to repeat and to compare the scores of one system.

    Args:
        scores: as measured.
        texts: scored on; hashed.
        system: scored; its hypotheses are in the report, so that the report alone is a
            baseline for a paired test.
        checks: of the gate.
    """
    return {
        "format": FORMAT,
        "program": __version__,
        "segments": texts.segments,
        "scores": [asdict(one) for one in scores],
        "sha256": {**texts.sha256(), "hypotheses": texts_sha256(system.hypotheses)},
        "texts": texts.names,
        **system.details,
        "gate": [asdict(check) for check in checks],
        "hypotheses": system.hypotheses,
    }


def length_report(buckets: Sequence[Bucket], scores: Mapping[str, Sequence[Score]]) -> Report:
    """Scores by source length, for JSON."""
    return {
        "unit": "source characters without white space",
        "buckets": [
            {"low": b.low, "high": b.high, "segments": len(b.members)} for b in buckets
        ],
        "scores": {name: [asdict(one) for one in row] for name, row in scores.items()},
    }  # fmt: skip


def comparison_report(
    systems: Sequence[System],
    texts: Texts,
    scores: Sequence[Sequence[Score]],
    comparisons: Sequence[Sequence[Sequence[Comparison]]] | None,
) -> Report:
    """Several systems, and how they compare with the first of them, for JSON."""
    rows: list[Report] = []
    for place, system in enumerate(systems):
        row: Report = {
            "name": system.name,
            **system.details,
            "sha256": texts_sha256(system.hypotheses),
            "scores": [asdict(one) for one in scores[place]],
        }
        if comparisons is not None and place > 0:
            row["against_first"] = [
                asdict(one) for by_test in comparisons for one in by_test[place - 1]
            ]
        rows.append(row)
    return {
        "format": FORMAT,
        "program": __version__,
        "segments": texts.segments,
        "sha256": texts.sha256(),
        "texts": texts.names,
        "systems": rows,
    }


def differing(
    baseline: System, system: System, texts: Texts, count: int
) -> tuple[list[int], list[int]]:
    """Segments in which two systems differ most by chrF2.

    Returns:
        Numbers of those where `system` is better, and where it is worse; most first.
    """
    before = sentence_scores(baseline.hypotheses, texts.references)
    after = sentence_scores(system.hypotheses, texts.references)
    gains = [now - then for now, then in zip(after, before, strict=True)]
    order = sorted(range(len(gains)), key=lambda n: (-gains[n], n))
    better = [n for n in order[:count] if gains[n] > 0]
    worse = [n for n in order[::-1][:count] if gains[n] < 0]
    return better, worse


def differences_text(baseline: System, system: System, texts: Texts, count: int = 5) -> str:
    """The segments that `differing` finds, to be read."""
    lines = []
    better, worse = differing(baseline, system, texts, count)
    for title, numbers in (("better", better), ("worse", worse)):
        lines.append(f"{system.name} is {title} than {baseline.name}, by chrF2, most first:")
        for number in numbers:
            lines.append(f"  line {number + 1}")
            if texts.source is not None:
                lines.append(f"    source     {texts.source[number]}")
            lines.append(f"    reference  {texts.references[0][number]}")
            lines.append(f"    {baseline.name}: {baseline.hypotheses[number]}")
            lines.append(f"    {system.name}: {system.hypotheses[number]}")
        if not numbers:
            lines.append("  nowhere")
    return "\n".join(lines)


def markdown(
    systems: Sequence[System],
    texts: Texts,
    scores: Sequence[Sequence[Score]],
    checks: Sequence[Check],
    lengths: tuple[Sequence[Bucket], Mapping[str, Sequence[Score]]] | None,
    comparisons: Sequence[Sequence[Sequence[Comparison]]] | None,
) -> str:
    """The whole evaluation as Markdown, for a job summary or a pull request."""
    parts = [
        "## nmt evaluate",
        score_table([system.name for system in systems], scores),
        f"{texts.segments:,} segments, 95 % bootstrap intervals.",
    ]
    if checks:
        results = [["passed" if c.passed else "**failed**", c.name, c.message] for c in checks]
        parts += ["### Gate", table(["result", "check", "found"], results)]
    if comparisons is not None:
        names = [system.name for system in systems]
        parts += ["### Against the first", comparison_table(names, comparisons)]
    if lengths is not None:
        parts += ["### By source length", length_table(*lengths)]
    repeat = [f"- `{one.signature}`" for one in scores[0]]
    repeat += [f"- {role} SHA-256 `{digest}`" for role, digest in texts.sha256().items()]
    for system in systems:
        repeat.append(f"- {system.name}: SHA-256 `{texts_sha256(system.hypotheses)}`")
        repeat += [f"  - {key}: `{value}`" for key, value in system.details.items()]
    parts += ["### To repeat", "\n".join(repeat)]
    return "\n\n".join(parts) + "\n"


def write_json(path: Path, report: Report) -> None:
    """Write a report to `path`.

    Raises:
        NmtError: it can't be written.
    """
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, f"{text}\n")


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write lines to `path`.

    Raises:
        NmtError: it can't be written.
    """
    write_whole(path, b"".join(f"{line}\n".encode() for line in lines))


def append_to_job_summary(text: str) -> None:
    """Append to the file that GitHub shows with a job, where there is one."""
    name = os.environ.get(SUMMARY_VARIABLE)
    if name:
        path = Path(name)
        try:
            with (
                writing_to(path),
                path.open("a", encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.write(text + "\n")
        except (NmtError, OSError) as error:
            logger.warning(f"the job summary is not written: {error}")
