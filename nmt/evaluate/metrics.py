"""BLEU and chrF by sacreBLEU, on raw text: the one score, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from nmt.errors import NmtError


@dataclass(frozen=True)
class Score:
    """A corpus score.

    Attributes:
        name: ``BLEU`` or ``chrF2``.
        value: 0 to 100.
        signature: sacreBLEU's, which says how it was made.
        detail: sacreBLEU's one line, with n-gram precisions and lengths for BLEU.
    """

    name: str
    value: float
    signature: str
    detail: str


@cache
def _metrics() -> tuple[BLEU, CHRF]:
    return BLEU(), CHRF()


def score(hypotheses: Sequence[str], references: Sequence[str]) -> list[Score]:
    """BLEU (Papineni et al. 2002) and chrF2 (Popović 2015), with sacreBLEU's defaults.

    Args:
        hypotheses: detokenised translations.
        references: one for each, as a person wrote them.

    Raises:
        NmtError: no lines, or not as many on one side as on the other.
    """
    if len(hypotheses) != len(references):
        raise NmtError(
            f"{len(hypotheses)} hypotheses, {len(references)} references: they must correspond "
            "line by line"
        )
    if not hypotheses:
        raise NmtError("nothing to score: no lines")
    scores = []
    for metric in _metrics():
        result = metric.corpus_score(list(hypotheses), [list(references)])
        signature = str(metric.get_signature())
        scores.append(Score(result.name, float(result.score), signature, str(result)))
    return scores
