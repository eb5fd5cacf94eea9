"""Tables in Markdown, which read well in a terminal too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Comparison, Score

SIGNIFICANT = 0.05


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns padded to one width; the first one left, the others right."""
    cells = [[_escape(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def with_interval(score: Score) -> str:
    """``26.91 [25.10, 28.72]``."""
    if score.interval is None:
        return f"{score.value:.2f}"
    return f"{score.value:.2f} [{score.interval[0]:.2f}, {score.interval[1]:.2f}]"


def score_table(systems: Sequence[str], scores: Sequence[Sequence[Score]]) -> str:
    """Systems down, metrics across, each with its 95 % interval."""
    rows = [[system, *map(with_interval, row)] for system, row in zip(systems, scores, strict=True)]
    return table(["system", *(score.name for score in scores[0])], rows)


def length_table(buckets: Sequence[Bucket], scores: Mapping[str, Sequence[Score]]) -> str:
    """Buckets of source length down, systems across."""
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
    return table(head, rows)


def comparison_table(
    names: Sequence[str], comparisons: Sequence[Sequence[Sequence[Comparison]]]
) -> str:
    """Systems against the first of them.

    Args:
        names: of all systems, the baseline first.
        comparisons: for each test, for each other system, for each metric.
    """
    tests = {"bs": "p, bootstrap", "ar": "p, randomisation"}
    head = ["system", "metric", "score", "difference"]
    head += [tests[by_test[0][0].test] for by_test in comparisons]
    rows = []
    first = comparisons[0]
    for one in first[0]:
        rows.append([f"{names[0]} (baseline)", one.name, f"{one.baseline:.2f}", ""])
        rows[-1] += ["" for _ in comparisons]
    for place, name in enumerate(names[1:]):
        for metric, one in enumerate(first[place]):
            cells = [name, one.name, f"{one.value:.2f}", f"{one.value - one.baseline:+.2f}"]
            for by_test in comparisons:
                p = by_test[place][metric].p_value
                cells.append(f"{p:.4f}" + (" *" if p < SIGNIFICANT else ""))
            rows.append(cells)
    return table(head, rows)


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
