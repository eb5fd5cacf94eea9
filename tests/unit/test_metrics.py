"""The one score: sacreBLEU's numbers, and what it refuses."""

from __future__ import annotations

import pytest
import sacrebleu

from nmt.errors import NmtError
from nmt.evaluate.metrics import Test, compare, score, sentence_scores

HYPOTHESES = ["the cat sat on the mat .", "I love you very much.", "hello there my friend"]
REFERENCES = ["The cat sat on the mat.", "I love you so much.", "hello there, my friend"]


def by_name(scores: list) -> dict:
    return {one.name: one for one in scores}


def test_scores_are_those_of_sacrebleu() -> None:
    found = by_name(score(HYPOTHESES, [REFERENCES]))
    assert found["BLEU"].value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert found["chrF2"].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score


def test_the_signature_says_how_the_score_was_made() -> None:
    found = by_name(score(HYPOTHESES, [REFERENCES]))
    version = f"version:{sacrebleu.__version__}"
    assert found["BLEU"].signature.split("|")[:5] == [
        "nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp",
    ]  # fmt: skip
    assert found["BLEU"].signature.endswith(version)
    assert found["chrF2"].signature.endswith(version)


def test_perfect_and_hopeless() -> None:
    assert by_name(score(REFERENCES, [REFERENCES]))["BLEU"].value == pytest.approx(100)
    assert by_name(score(["", "", ""], [REFERENCES]))["BLEU"].value == 0


def test_scoring_twice_gives_the_same() -> None:
    first = score(HYPOTHESES, [REFERENCES])
    score(["something else"], [["between the two"]])
    assert score(HYPOTHESES, [REFERENCES]) == first


def test_unequal_counts_name_both() -> None:
    with pytest.raises(NmtError, match="2 hypotheses, 3 references: they must correspond"):
        score(HYPOTHESES[:2], [REFERENCES])


def test_nothing_to_score() -> None:
    with pytest.raises(NmtError, match="nothing to score: no lines"):
        score([], [[]])


def test_intervals_are_those_of_sacrebleu() -> None:
    found = by_name(score(HYPOTHESES, [REFERENCES], resamples=1000))
    expected = sacrebleu.metrics.BLEU().corpus_score(HYPOTHESES, [REFERENCES], n_bootstrap=1000)
    assert found["BLEU"].interval is not None
    low, high = found["BLEU"].interval
    assert (low + high) / 2 == pytest.approx(expected._mean)
    assert (high - low) / 2 == pytest.approx(expected._ci)
    assert "bs:1000" in found["BLEU"].signature


def test_further_references_can_only_help() -> None:
    more = ["I love you very much.", "I love you very much.", "hello there my friend"]
    one = by_name(score(HYPOTHESES, [REFERENCES]))
    two = by_name(score(HYPOTHESES, [REFERENCES, more]))
    assert two["BLEU"].value > one["BLEU"].value
    assert "nrefs:2" in two["BLEU"].signature


def test_a_blank_line_of_a_further_set_is_no_reference() -> None:
    more = ["", "I love you very much.", "  "]
    found = by_name(score(HYPOTHESES, [REFERENCES, more]))["BLEU"]
    known = [REFERENCES, [None, more[1], None]]
    expected = sacrebleu.metrics.BLEU().corpus_score(HYPOTHESES, known)
    assert found.value == expected.score
    assert "nrefs:var" in found.signature
    assert sentence_scores(HYPOTHESES, [more, REFERENCES])[0] == pytest.approx(
        sentence_scores(HYPOTHESES, [REFERENCES])[0]
    )
    for one in score(HYPOTHESES, [REFERENCES, more], kinds=["chrf++", "ter"]):
        assert "nrefs:var" in one.signature
    ((bleu, _),) = compare(HYPOTHESES, [HYPOTHESES], [REFERENCES, more], test="bs")
    assert bleu.value == pytest.approx(found.value)


def test_other_metrics_on_request() -> None:
    found = score(HYPOTHESES, [REFERENCES], kinds=["chrf++", "ter"])
    assert [one.name for one in found] == ["chrF2++", "TER"]
    assert found[0].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert found[1].value == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score


def test_a_very_large_set_draws_fewer_resamples() -> None:
    lines = ["a b c d"] * 100_000
    (one,) = score(lines, [lines], kinds=["bleu"], resamples=1000)
    assert "bs:200|" in one.signature


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_a_real_difference_is_found_and_none_invented(test: Test) -> None:
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
@pytest.mark.parametrize(("changed", "least"), [(1, 1.0), (2, 0.5), (4, 0.125)])
def test_a_few_lines_that_differ_prove_nothing(test: Test, changed: int, least: float) -> None:
    references = [f"the {n} cats sat on the {n} mats today" for n in range(60)]
    worse = [line.replace("sat", "is") for line in references[:changed]] + references[changed:]
    ((bleu, chrf),) = compare(references, [worse], [references], test=test)
    assert bleu.value < bleu.baseline
    assert bleu.p_value >= least
    assert chrf.p_value >= least


def test_sentence_scores_keep_order() -> None:
    found = sentence_scores(HYPOTHESES, [REFERENCES])
    assert len(found) == 3
    assert found[2] == sacrebleu.sentence_chrf(HYPOTHESES[2], [REFERENCES[2]]).score


def test_interval_ends_are_possible_scores() -> None:
    lines = ["I love China.", ""]
    for result in score(lines, [lines], kinds=["bleu", "chrf", "chrf++"], resamples=1000):
        assert result.interval is not None
        low, high = result.interval
        assert 0 <= low <= high <= 100
        assert result.value == pytest.approx(100)
