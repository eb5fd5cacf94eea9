"""BLEU, chrF and TER by sacreBLEU, on raw text: the one score, in training and in evaluation.

Nothing else imports sacreBLEU: how it is called, and with which settings, stands here.
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
# sacreBLEU holds every resample at once, some 80 bytes a segment each: fewer of them
# for a very large set. The signature says how many there were.
_MOST_RESAMPLED = 20_000_000
_FEWEST_RESAMPLES = 100
_MOST_TRIED = 20_000  # segments; memory grows with them and the trials


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
        value: 0 to 100; TER may be more, and lower is better there alone.
        signature: sacreBLEU's, which says how it was made.
        detail: sacreBLEU's one line, with n-gram precisions and lengths for BLEU.
        interval: 95 % bootstrap interval, lower and upper end; None if not asked for.
    """

    name: str
    value: float
    signature: str
    detail: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """One system against the baseline, by one metric and one paired test.

    Attributes:
        name: of the metric.
        baseline: its score, 0 to 100.
        value: the system's score.
        p_value: chance of a difference as large if the two were equally good.
        test: ``bs``, paired bootstrap (Koehn 2004), or ``ar``, approximate
            randomisation (Riezler & Maxwell 2005).
        signature: sacreBLEU's, trials and seed included.
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
    """BLEU (Papineni et al. 2002) and chrF2 (Popović 2015), with sacreBLEU's defaults.

    Args:
        hypotheses: detokenised translations.
        references: sets of them, one line for each hypothesis, as a person wrote it. Where one
            of several sets has a blank line it has no reference for that segment.
        kinds: which metrics, in this order; ``chrf++`` is chrF with word bigrams
            (Popović 2017), ``ter`` Snover et al. (2006).
        resamples: of the bootstrap that gives the intervals (Koehn 2004); 0 for none.
            Above 20,000 segments fewer are drawn, and the signature says so.

    Raises:
        NmtError: no lines, or not as many on one side as on the other.
    """
    every = _checked(hypotheses, references)
    drawn = min(resamples, max(_FEWEST_RESAMPLES, _MOST_RESAMPLED // len(hypotheses)))
    scores = []
    for kind in kinds:
        metric = _METRICS[kind]()
        result = metric.corpus_score(list(hypotheses), every, n_bootstrap=drawn)
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
        baseline: its hypotheses.
        systems: hypotheses of each other system.
        references: complete sets of them, one line for each segment.
        test: ``bs`` or ``ar``.
        kinds: which metrics.

    Returns:
        For each system its comparisons, in the order of `kinds`.

    Raises:
        NmtError: no lines, or unequal numbers of them.
    """
    every = _checked(baseline, references)
    for other in systems:
        _checked(other, every)
    named: list[tuple[str, Sequence[str]]] = [
        (str(place), list(lines)) for place, lines in enumerate([baseline, *systems])
    ]
    metrics: dict[str, Any] = {kind: _METRICS[kind]() for kind in kinds}
    trials = min(TRIALS[test], max(_FEWEST_RESAMPLES, TRIALS[test] * _MOST_TRIED // len(baseline)))
    paired = PairedTest(named, metrics, every, test_type=test, n_samples=trials)  # type: ignore[arg-type] # None is no reference
    # Untyped: sacreBLEU puts the systems' names and their results into one mapping.
    answer: tuple[Any, Any] = paired()
    signatures, results = answer
    names = [name for name in results if name != "System"]

    def comparison(name: str, place: int) -> Comparison:
        first, one = results[name][0], results[name][place]
        # sacreBLEU counts trials with a larger difference only. But of all ways to swap the lines
        # that differ, two give the difference that was found; and no difference is no evidence.
        differ = sum(a != b for a, b in zip(baseline, systems[place - 1], strict=True))
        least = 1.0 if one.score == first.score else min(1.0, 2.0 ** (1 - differ))
        p_value = max(float(one.p_value), least)
        return Comparison(
            name, float(first.score), float(one.score), p_value, test, str(signatures[name])
        )

    return [[comparison(name, place) for name in names] for place in range(1, len(named))]


def sentence_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """chrF2 of every single segment, 0 to 100: to sort by, BLEU is no measure of one sentence."""
    metric = CHRF()
    every = _checked(hypotheses, references)
    return [
        float(metric.sentence_score(hypothesis, [r for r in its if r is not None]).score)
        for hypothesis, *its in zip(hypotheses, *every, strict=True)
    ]


def _checked(
    hypotheses: Sequence[str], every_reference: Sequence[Sequence[str | None]]
) -> list[list[str | None]]:
    """The references; None in place of a blank line where another set has text."""
    for references in every_reference:
        if len(hypotheses) != len(references):
            raise NmtError(
                f"{len(hypotheses)} hypotheses, {len(references)} references: they must "
                "correspond line by line"
            )
    if not hypotheses:
        raise NmtError("nothing to score: no lines")
    every = [list(references) for references in every_reference]
    for segment, lines in enumerate(zip(*every, strict=True)):
        if any(line and line.strip() for line in lines):
            for references, line in zip(every, lines, strict=True):
                if not (line and line.strip()):
                    references[segment] = None  # as sacreBLEU calls it; "" has a length, 0
    return every
