"""Quality gate: floors, and significant drops below a baseline."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nmt.errors import NmtError
from nmt.evaluate.gate import Check, check_drop, check_floors, junit, read_baseline
from nmt.evaluate.inputs import System, Texts
from nmt.evaluate.metrics import Score, score
from nmt.evaluate.report import Evaluation, system_report

SCORES = [Score("BLEU", 20.0, "signature", "detail"), Score("chrF2", 45.5, "signature", "detail")]


def test_without_a_floor_there_is_no_check() -> None:
    assert check_floors(SCORES, {"BLEU": None, "chrF2": None}) == []
    assert check_floors(SCORES, {}) == []


def test_score_that_equals_its_floor_when_rounded_passes() -> None:
    (check,) = check_floors([Score("BLEU", 26.9083, "signature", "detail")], {"BLEU": 26.91})
    assert check.passed
    assert check.message == "BLEU 26.91 reaches the floor of 26.91"


@pytest.mark.parametrize("floor", [0.0, 19.99, 20.0])
def test_score_at_or_above_its_floor_passes(floor: float) -> None:
    assert [check.passed for check in check_floors(SCORES, {"BLEU": floor})] == [True]


def test_message_of_each_missed_floor() -> None:
    assert [
        (check.passed, check.message)
        for check in check_floors(SCORES, {"BLEU": 20.01, "chrF2": 50})
    ] == [
        (False, "BLEU 20.00 is below the floor of 20.01"),
        (False, "chrF2 45.50 is below the floor of 50"),
    ]


def report(folder: Path, texts: Texts, lines: list[str], **changes: object) -> Path:
    scores = score(lines, texts.references)
    values = system_report(Evaluation([System("x", lines)], texts, [scores]))
    path = folder / "report.json"
    path.write_text(json.dumps({**values, **changes}))
    return path


REFERENCES = [f"the {n} cats sat on the {n} mats today" for n in range(80)]
TEXTS = Texts(None, [REFERENCES], ["ref"])
WORSE = [line.replace("sat on", "is at") for line in REFERENCES]
SLIGHTLY_WORSE = [WORSE[0], *REFERENCES[1:]]


def drop_below_references(folder: Path, hypotheses: list[str], max_drop: float) -> Check:
    path = report(folder, TEXTS, REFERENCES)
    return check_drop(path, read_baseline(path, TEXTS), hypotheses, TEXTS, max_drop)


def test_equal_hypotheses_pass(tmp_path: Path) -> None:
    assert drop_below_references(tmp_path, REFERENCES, 0).passed


def test_a_significant_drop_fails(tmp_path: Path) -> None:
    result = drop_below_references(tmp_path, WORSE, 1)
    assert not result.passed
    assert result.message.endswith(": a significant drop of more than 1")


def test_a_drop_within_the_allowance_passes(tmp_path: Path) -> None:
    assert drop_below_references(tmp_path, WORSE, 90).passed


def test_drop_that_is_not_significant_passes(tmp_path: Path) -> None:
    result = drop_below_references(tmp_path, SLIGHTLY_WORSE, 0)
    assert result.passed
    assert result.message.endswith("a drop of more than 0, but not a significant one")


def test_a_rise_passes(tmp_path: Path) -> None:
    path = report(tmp_path, TEXTS, WORSE)
    assert check_drop(path, read_baseline(path, TEXTS), REFERENCES, TEXTS, 0).passed


def test_baseline_of_another_test_set_is_refused(tmp_path: Path) -> None:
    path = report(tmp_path, TEXTS, REFERENCES)
    with pytest.raises(NmtError, match="is of another test set: its reference has SHA-256"):
        read_baseline(path, Texts(None, [WORSE], ["ref"]))


def test_baseline_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = report(tmp_path, TEXTS, REFERENCES, format=99)
    with pytest.raises(NmtError, match="report format 99, this program reads up to 1"):
        read_baseline(path, TEXTS)


def test_baseline_with_a_non_finite_score_is_refused(tmp_path: Path) -> None:
    path = report(tmp_path, TEXTS, REFERENCES, scores=[{"name": "BLEU", "value": math.nan}])
    with pytest.raises(NmtError, match="BLEU is nan, not a number"):
        read_baseline(path, TEXTS)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "1"}'])
def test_file_that_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(NmtError, match="not a report"):
        read_baseline(tmp_path / "report.json", TEXTS)


def test_report_without_hypotheses_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NmtError, match="damaged report: hypotheses is missing"):
        read_baseline(report(tmp_path, TEXTS, REFERENCES, hypotheses=None), TEXTS)
    with pytest.raises(NmtError, match="damaged: its hypotheses"):
        read_baseline(report(tmp_path, TEXTS, REFERENCES, hypotheses=["a"]), TEXTS)


def test_missing_baseline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NmtError, match="no such file"):
        read_baseline(tmp_path / "none.json", TEXTS)


def test_junit_has_counts_names_and_escaped_messages() -> None:
    checks = [Check("a", True, "fine"), Check("b", False, 'x < "y" & z')]
    suite = ElementTree.fromstring(junit(checks))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cases = {case.get("name"): case for case in suite}
    assert cases["a"].find("failure") is None
    failure = cases["b"].find("failure")
    assert failure is not None
    assert failure.get("message") == 'x < "y" & z'
