"""The one score: sacreBLEU's numbers, and what it refuses."""

from __future__ import annotations

import pytest
import sacrebleu

from nmt.errors import NmtError
from nmt.evaluate.metrics import score

HYPOTHESES = ["the cat sat on the mat .", "I love you very much.", "hello there my friend"]
REFERENCES = ["The cat sat on the mat.", "I love you so much.", "hello there, my friend"]


def by_name(scores: list) -> dict:
    return {one.name: one for one in scores}


def test_scores_are_those_of_sacrebleu() -> None:
    found = by_name(score(HYPOTHESES, REFERENCES))
    assert found["BLEU"].value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert found["chrF2"].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score


def test_the_signature_says_how_the_score_was_made() -> None:
    found = by_name(score(HYPOTHESES, REFERENCES))
    version = f"version:{sacrebleu.__version__}"
    assert found["BLEU"].signature.split("|")[:5] == [
        "nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp",
    ]  # fmt: skip
    assert found["BLEU"].signature.endswith(version)
    assert found["chrF2"].signature.endswith(version)


def test_perfect_and_hopeless() -> None:
    assert by_name(score(REFERENCES, REFERENCES))["BLEU"].value == pytest.approx(100)
    assert by_name(score(["", "", ""], REFERENCES))["BLEU"].value == 0


def test_scoring_twice_gives_the_same() -> None:
    first = score(HYPOTHESES, REFERENCES)
    score(["something else"], ["between the two"])
    assert score(HYPOTHESES, REFERENCES) == first


def test_unequal_counts_name_both() -> None:
    with pytest.raises(NmtError, match="2 hypotheses, 3 references: they must correspond"):
        score(HYPOTHESES[:2], REFERENCES)


def test_nothing_to_score() -> None:
    with pytest.raises(NmtError, match="nothing to score: no lines"):
        score([], [])
