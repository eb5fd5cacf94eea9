"""Evaluation from request to answer; read `evaluate` top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nmt.data.training_keys import count_trained_on
from nmt.evaluate import gate, lengths, report, tables
from nmt.evaluate.inputs import Decoding, System, Texts, read, translated
from nmt.evaluate.metrics import DEFAULT, RESAMPLES, Comparison, Kind, Score, compare, score
from nmt.evaluate.page import report_page
from nmt.evaluate.request import Request
from nmt.io.write import write_text, write_whole, writing_to
from nmt.run.directory import Run
from nmt.viz import plots

logger = logging.getLogger(__name__)

Banded = tuple[list[lengths.Bucket], dict[str, list[Score]]]
Compared = list[list[list[Comparison]]]


@dataclass(frozen=True)
class Evaluated:
    """What came out.

    Attributes:
        answer: what belongs on stdout.
        checks: of the gate.
        write: writes the reports that were asked for.
    """

    answer: str
    checks: list[gate.Check]
    write: Callable[[], None]


def evaluate(request: Request) -> Evaluated:
    """Translate, score, compare and check.

    Raises:
        NmtError: anything wrong with the request or its files; nothing is translated before
            all that is given has been read.
    """
    kinds: list[Kind] = [*DEFAULT, *(metric.value for metric in request.metrics)]
    bounds = None if request.by_length is None else lengths.parse_bounds(request.by_length)
    texts, given = read(request.systems, request.src, request.refs)
    _warn_of_leakage(given, texts)
    before = None if request.baseline is None else gate.read_baseline(request.baseline, texts)
    decoding = Decoding(request.device, request.beam, request.length_penalty, request.batch_size)
    systems = translated(given, texts, decoding)

    scores = [
        score(system.hypotheses, texts.references, kinds=kinds, resamples=RESAMPLES)
        for system in systems
    ]
    answer = [_scores_text(systems, scores, texts)]

    checks = gate.floors(scores[0], {"BLEU": request.min_bleu, "chrF2": request.min_chrf})
    if request.baseline is not None and before is not None:
        now = systems[0].hypotheses
        checks.append(gate.no_drop(request.baseline, before, now, texts, request.max_drop or 0.0))

    compared = _compare(systems, texts, kinds) if request.compare else None
    if compared is not None:
        answer.append(tables.comparison_table([s.name for s in systems], compared))
        answer.append(f"* p < {tables.SIGNIFICANT:g}: the difference is significant")
        answer += [report.differences_text(systems[0], other, texts) for other in systems[1:]]

    banded = _by_length(systems, texts, bounds) if request.by_length is not None else None
    if banded is not None:
        answer.append(tables.length_table(*banded))

    def write() -> None:
        _write(request, texts, systems, scores, checks, compared, banded)

    return Evaluated("\n\n".join(answer), checks, write)


def _warn_of_leakage(systems: Sequence[Run | System], texts: Texts) -> None:
    """Warn of source sentences that a system was trained on."""
    for run in systems:
        if isinstance(run, Run) and texts.source:
            simplify = run.config.data.to_simplified
            count = count_trained_on(run.folder, texts.source, simplify=simplify)
            if count:
                share = 100 * count / len(texts.source)
                logger.warning(
                    f"{run.folder}: trained on {count} of {len(texts.source)} source sentences "
                    f"({share:.1f} %): its scores are too high. Score it on its own test set, or "
                    "list the sentences under data.exclude, prepare and train again"
                )


def _scores_text(systems: Sequence[System], scores: Sequence[Sequence[Score]], texts: Texts) -> str:
    if len(systems) == 1:
        return "\n".join(
            f"{one.name} {tables.with_interval(one)}  ({texts.segments} segments; {one.signature})"
            for one in scores[0]
        )
    names = [system.name for system in systems]
    signatures = "\n".join(one.signature for one in scores[0])
    return f"{tables.score_table(names, scores)}\n{texts.segments} segments\n{signatures}"


def _compare(systems: Sequence[System], texts: Texts, kinds: Sequence[Kind]) -> Compared:
    baseline, *others = (system.hypotheses for system in systems)
    return [
        compare(baseline, others, texts.references, test="bs", kinds=kinds),
        compare(baseline, others, texts.references, test="ar", kinds=kinds),
    ]


def _by_length(systems: Sequence[System], texts: Texts, bounds: Sequence[int] | None) -> Banded:
    assert texts.source is not None  # `_check_request` saw to it
    bands = lengths.make_buckets(texts.source, bounds)
    return bands, {
        system.name: lengths.score_buckets(bands, system.hypotheses, texts.references)
        for system in systems
    }


def _write(
    request: Request,
    texts: Texts,
    systems: Sequence[System],
    scores: Sequence[Sequence[Score]],
    checks: Sequence[gate.Check],
    compared: Compared | None,
    banded: Banded | None,
) -> None:
    out = request.folder
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    if len(systems) == 1:
        full = report.make_report(scores[0], texts, systems[0], checks)
        if banded is not None:
            full["by_length"] = report.length_report(*banded)
        report.write_json(out / "report.json", full)
        report.write_lines(out / "hypotheses.txt", systems[0].hypotheses)
        logger.info(f"report: {out / 'report.json'}")
    else:
        several = report.comparison_report(systems, texts, scores, compared)
        if banded is not None:
            several["by_length"] = report.length_report(*banded)
        report.write_json(out / "comparison.json", several)
        logger.info(f"report: {out / 'comparison.json'}")
    if banded is not None and request.chart is not None:
        kind = plots.check_chart_name(request.chart)
        write_whole(
            request.chart,
            plots.length_chart([bucket.title for bucket in banded[0]], banded[1], kind),
        )
        logger.info(f"chart: {request.chart}")
    text = report.markdown(systems, texts, scores, checks, banded, compared)
    if request.markdown is not None:
        write_text(request.markdown, text)
    report.append_to_job_summary(text)
    if request.junit is not None:
        write_whole(request.junit, gate.junit(checks))
    if request.html is not None:
        bands = banded or (None if texts.source is None else _by_length(systems, texts, None))
        page = report_page(systems[0], texts, scores[0], checks, bands)
        write_text(request.html, page)
        logger.info(f"page: {request.html}")
