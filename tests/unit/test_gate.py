"""Floors of the gate."""

from __future__ import annotations

import pytest

from nmt.evaluate.gate import failures
from nmt.evaluate.metrics import Score

SCORES = [Score("BLEU", 20.0, "signature", "detail"), Score("chrF2", 45.5, "signature", "detail")]


def test_no_floor_is_always_met() -> None:
    assert failures(SCORES, {"BLEU": None, "chrF2": None}) == []
    assert failures(SCORES, {}) == []


@pytest.mark.parametrize("floor", [0.0, 19.99, 20.0])
def test_a_score_at_its_floor_passes(floor: float) -> None:
    assert failures(SCORES, {"BLEU": floor}) == []


def test_each_missed_floor_has_its_message() -> None:
    assert failures(SCORES, {"BLEU": 20.01, "chrF2": 50}) == [
        "BLEU 20.00 is below the floor of 20.01",
        "chrF2 45.50 is below the floor of 50",
    ]
