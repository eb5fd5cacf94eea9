"""Scores equal sacreBLEU's; unfit input is refused."""

from __future__ import annotations

import pytest
import sacrebleu

from nmt.errors import NmtError
from nmt.evaluate.metrics import Test, compare, score, sentence_scores

HYPOTHESES = ["the cat sat on the mat .", "I love you very much.", "hello there my friend"]
REFERENCES = ["The cat sat on the mat.", "I love you so much.", "hello there, my friend"]


def by_name(scores: list) -> dict:
    return {result.name: result for result in scores}


def test_scores_are_those_of_sacrebleu() -> None:
    scores = by_name(score(HYPOTHESES, [REFERENCES]))
    assert scores["BLEU"].value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores["chrF2"].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score


def test_signature_contains_settings_and_version() -> None:
    scores = by_name(score(HYPOTHESES, [REFERENCES]))
    version = f"version:{sacrebleu.__version__}"
    assert scores["BLEU"].signature.split("|")[:5] == [
        "nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp",
    ]  # fmt: skip
    assert scores["BLEU"].signature.endswith(version)
    assert scores["chrF2"].signature.endswith(version)


def test_identical_text_scores_100_and_empty_text_0() -> None:
    assert by_name(score(REFERENCES, [REFERENCES]))["BLEU"].value == pytest.approx(100)
    assert by_name(score(["", "", ""], [REFERENCES]))["BLEU"].value == 0


def test_scores_do_not_depend_on_earlier_calls() -> None:
    first = score(HYPOTHESES, [REFERENCES])
    score(["something else"], [["between the two"]])
    assert score(HYPOTHESES, [REFERENCES]) == first


def test_error_of_unequal_counts_contains_both() -> None:
    with pytest.raises(NmtError, match="2 hypotheses, 3 references: they must correspond"):
        score(HYPOTHESES[:2], [REFERENCES])


def test_empty_set_is_refused() -> None:
    with pytest.raises(NmtError, match="nothing to score: no lines"):
        score([], [[]])


def test_intervals_are_those_of_sacrebleu() -> None:
    scores = by_name(score(HYPOTHESES, [REFERENCES], resamples=1000))
    expected = sacrebleu.metrics.BLEU().corpus_score(HYPOTHESES, [REFERENCES], n_bootstrap=1000)
    assert scores["BLEU"].interval is not None
    low, high = scores["BLEU"].interval
    assert (low + high) / 2 == pytest.approx(expected._mean)
    assert (high - low) / 2 == pytest.approx(expected._ci)
    assert "bs:1000" in scores["BLEU"].signature


def test_a_further_reference_can_raise_bleu() -> None:
    more = ["I love you very much.", "I love you very much.", "hello there my friend"]
    single = by_name(score(HYPOTHESES, [REFERENCES]))
    double = by_name(score(HYPOTHESES, [REFERENCES, more]))
    assert double["BLEU"].value > single["BLEU"].value
    assert "nrefs:2" in double["BLEU"].signature


def test_blank_line_of_a_further_set_is_a_missing_reference() -> None:
    more = ["", "I love you very much.", "  "]
    scores = by_name(score(HYPOTHESES, [REFERENCES, more]))["BLEU"]
    known = [REFERENCES, [None, more[1], None]]
    expected = sacrebleu.metrics.BLEU().corpus_score(HYPOTHESES, known)
    assert scores.value == expected.score
    assert "nrefs:var" in scores.signature
    assert sentence_scores(HYPOTHESES, [more, REFERENCES])[0] == pytest.approx(
        sentence_scores(HYPOTHESES, [REFERENCES])[0]
    )
    for result in score(HYPOTHESES, [REFERENCES, more], kinds=["chrf++", "ter"]):
        assert "nrefs:var" in result.signature
    ((bleu, _),) = compare(HYPOTHESES, [HYPOTHESES], [REFERENCES, more], test="bs")
    assert bleu.value == pytest.approx(scores.value)


def test_chrf_with_words_and_ter_equal_sacrebleu() -> None:
    scores = score(HYPOTHESES, [REFERENCES], kinds=["chrf++", "ter"])
    assert [result.name for result in scores] == ["chrF2++", "TER"]
    assert scores[0].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert scores[1].value == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score


def test_large_set_draws_fewer_resamples() -> None:
    lines = ["a b c d"] * 100_000
    (result,) = score(lines, [lines], kinds=["bleu"], resamples=1000)
    assert "bs:200|" in result.signature


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_difference_is_significant_and_equal_systems_are_not(test: Test) -> None:
    references = [f"the {n} cats sat on the {n} mats today" for n in range(60)]
    worse = [line.replace("sat on", "is at") for line in references]
    ((bleu, chrf), (same, _)) = compare(
        references, [worse, references], [references], test=test
    )  # fmt: skip
    assert (bleu.name, chrf.name) == ("BLEU", "chrF2")
    assert bleu.baseline == pytest.approx(100)
    assert bleu.value < 70
    assert bleu.p_value < 0.01
    assert same.value == same.baseline
    assert same.p_value > 0.05
    assert f"{test}:" in bleu.signature


@pytest.mark.parametrize("test", ["bs", "ar"])
@pytest.mark.parametrize(("changed", "min_p_value"), [(1, 1.0), (2, 0.5), (4, 0.125)])
def test_p_value_has_a_lower_bound_for_few_differing_lines(
    test: Test, changed: int, min_p_value: float
) -> None:
    references = [f"the {n} cats sat on the {n} mats today" for n in range(60)]
    worse = [line.replace("sat", "is") for line in references[:changed]] + references[changed:]
    ((bleu, chrf),) = compare(references, [worse], [references], test=test)
    assert bleu.value < bleu.baseline
    assert bleu.p_value >= min_p_value
    assert chrf.p_value >= min_p_value


def test_sentence_scores_are_in_order() -> None:
    scores = sentence_scores(HYPOTHESES, [REFERENCES])
    assert len(scores) == 3
    assert scores[2] == sacrebleu.sentence_chrf(HYPOTHESES[2], [REFERENCES[2]]).score


def test_interval_ends_are_between_0_and_100() -> None:
    lines = ["I love China.", ""]
    for result in score(lines, [lines], kinds=["bleu", "chrf", "chrf++"], resamples=1000):
        assert result.interval is not None
        low, high = result.interval
        assert 0 <= low <= high <= 100
        assert result.value == pytest.approx(100)
