"""BLEU, chrF and TER by sacreBLEU on raw text, for validation and evaluation.

No other module imports sacreBLEU: its settings are defined here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from nmt.errors import NmtError

Kind = Literal["bleu", "chrf", "chrf++", "ter"]
Test = Literal["bs", "ar"]

DEFAULT: tuple[Kind, ...] = ("bleu", "chrf")
RESAMPLES = 1000
TRIALS: Mapping[Test, int] = {"bs": 1000, "ar": 10000}
SIGNIFICANT = 0.05  # p-value below which a difference is significant

# sacreBLEU allocates all resamples at once, about 80 bytes per segment and resample. Large sets
# get fewer of them; the signature contains the number.
_MAX_RESAMPLED_SEGMENTS = 20_000_000
_MIN_RESAMPLES = 100
_MAX_SEGMENTS_ALL_TRIALS = 20_000  # more segments get fewer trials of a paired test


class _FloatScores:
    """Mixin: convert scores to float.

    sacreBLEU returns float or NumPy's float32, depending on the statistics, and the bootstrap
    mean of a mixture raises TypeError (a resample that consists of blank lines only).
    """

    def _compute_score_from_stats(self, stats: Any) -> Any:
        result = super()._compute_score_from_stats(stats)  # type: ignore[misc]
        result.score = float(result.score)
        return result


class _Bleu(_FloatScores, BLEU):
    pass


class _Chrf(_FloatScores, CHRF):
    pass


class _Ter(_FloatScores, TER):
    pass


_METRICS: dict[Kind, Callable[[], Any]] = {
    "bleu": _Bleu,
    "chrf": _Chrf,
    "chrf++": lambda: _Chrf(word_order=2),
    "ter": _Ter,
}


@dataclass(frozen=True)
class Score:
    """A corpus score.

    Attributes:
        name: ``BLEU``, ``chrF2``, ``chrF2++`` or ``TER``.
        value: 0 to 100; TER may exceed 100, and lower is better for TER only.
        signature: sacreBLEU's signature of metric and settings.
        detail: sacreBLEU's summary line, with n-gram precisions and lengths for BLEU.
        interval: 95 % bootstrap interval, lower and upper end; None without resamples.
    """

    name: str
    value: float
    signature: str
    detail: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """A system compared with the baseline by one metric and one paired test.

    Attributes:
        name: of the metric.
        baseline: score of the baseline, 0 to 100.
        value: score of the system.
        p_value: probability of a difference at least as large under the null hypothesis.
        test: ``bs``, paired bootstrap (Koehn 2004), or ``ar``, approximate
            randomisation (Riezler & Maxwell 2005).
        signature: sacreBLEU's signature, with trials and seed.
    """

    name: str
    baseline: float
    value: float
    p_value: float
    test: Test
    signature: str


def score(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    kinds: Sequence[Kind] = DEFAULT,
    resamples: int = 0,
) -> list[Score]:
    """Return BLEU (Papineni et al. 2002) and chrF2 (Popović 2015), with sacreBLEU's defaults.

    Args:
        hypotheses: detokenised translations.
        references: sets of untokenised references, each with one line per hypothesis. A blank
            line in one of several sets means that this reference is missing for the segment.
        kinds: metrics, in this order; ``chrf++`` is chrF with word bigrams (Popović 2017),
            ``ter`` is TER (Snover et al. 2006).
        resamples: of the bootstrap for the intervals (Koehn 2004); 0 for no intervals.
            Fewer are drawn above 20,000 segments; the signature contains the number.

    Raises:
        NmtError: no lines, or different numbers of lines.
    """
    known = _known_references(hypotheses, references)
    drawn = min(resamples, max(_MIN_RESAMPLES, _MAX_RESAMPLED_SEGMENTS // len(hypotheses)))
    scores = []
    for kind in kinds:
        metric = _METRICS[kind]()
        result = metric.corpus_score(list(hypotheses), known, n_bootstrap=drawn)
        interval = None
        if drawn > 1:
            low, high = float(result._mean - result._ci), float(result._mean + result._ci)
            upper_limit = math.inf if kind == "ter" else 100.0
            interval = (max(0.0, low), min(upper_limit, high))
        scores.append(
            Score(
                result.name,
                float(result.score),
                str(metric.get_signature()),
                str(result),
                interval,
            )
        )
    return scores


def compare(
    baseline: Sequence[str],
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    test: Test,
    kinds: Sequence[Kind] = DEFAULT,
) -> list[list[Comparison]]:
    """Compare systems with a baseline by sacreBLEU's paired tests.

    Args:
        baseline: hypotheses of the baseline.
        systems: hypotheses of each other system.
        references: complete sets of references, one line per segment.
        test: ``bs`` or ``ar``.
        kinds: metrics.

    Returns:
        Comparisons of each system, in the order of `kinds`.

    Raises:
        NmtError: no lines, or different numbers of lines.
    """
    known = _known_references(baseline, references)
    for hypotheses in systems:
        _known_references(hypotheses, known)
    named: list[tuple[str, Sequence[str]]] = [
        (str(number), list(lines)) for number, lines in enumerate([baseline, *systems])
    ]
    metrics: dict[str, Any] = {kind: _METRICS[kind]() for kind in kinds}
    max_trials = TRIALS[test] * _MAX_SEGMENTS_ALL_TRIALS // len(baseline)
    trials = min(TRIALS[test], max(_MIN_RESAMPLES, max_trials))
    paired = PairedTest(named, metrics, known, test_type=test, n_samples=trials)  # type: ignore[arg-type] # None: reference is missing
    # sacreBLEU returns one untyped mapping with the names and the results of the systems.
    outcome: tuple[Any, Any] = paired()
    signatures, results = outcome
    names = [name for name in results if name != "System"]

    def comparison(name: str, number: int) -> Comparison:
        base, result = results[name][0], results[name][number]
        # sacreBLEU counts only trials with a larger difference. With n differing lines, 2 of the
        # 2^n ways to swap them give the observed difference. Equal scores have p = 1.
        differing = sum(a != b for a, b in zip(baseline, systems[number - 1], strict=True))
        min_p_value = 1.0 if result.score == base.score else min(1.0, 2.0 ** (1 - differing))
        p_value = max(float(result.p_value), min_p_value)
        return Comparison(
            name, float(base.score), float(result.score), p_value, test, str(signatures[name])
        )

    return [[comparison(name, number) for name in names] for number in range(1, len(named))]


def sentence_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return chrF2 of each segment, 0 to 100. BLEU of a single sentence is not meaningful."""
    metric = CHRF()
    known = _known_references(hypotheses, references)
    return [
        float(metric.sentence_score(hypothesis, [r for r in lines if r is not None]).score)
        for hypothesis, *lines in zip(hypotheses, *known, strict=True)
    ]


def _known_references(
    hypotheses: Sequence[str], reference_sets: Sequence[Sequence[str | None]]
) -> list[list[str | None]]:
    """Return the references, None for a blank line if another set has text for its segment."""
    for references in reference_sets:
        if len(hypotheses) != len(references):
            raise NmtError(
                f"{len(hypotheses)} hypotheses, {len(references)} references: they must "
                "correspond line by line"
            )
    if not hypotheses:
        raise NmtError("nothing to score: no lines")
    known = [list(references) for references in reference_sets]
    for segment, lines in enumerate(zip(*known, strict=True)):
        if any(line and line.strip() for line in lines):
            for references, line in zip(known, lines, strict=True):
                if not (line and line.strip()):
                    references[segment] = None  # "" would count as a reference of length 0
    return known
