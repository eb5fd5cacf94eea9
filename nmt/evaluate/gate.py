"""The quality gate for CI: minimum scores, and no significant drop below a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nmt.errors import NmtError
from nmt.evaluate.inputs import Texts, hash_lines
from nmt.evaluate.metrics import SIGNIFICANT, Score, compare

FORMAT = 1  # of report.json


@dataclass(frozen=True)
class Check:
    """Result of one condition of the gate.

    Attributes:
        name: the condition.
        passed: whether it holds.
        message: the outcome with its numbers.
    """

    name: str
    passed: bool
    message: str


def check_floors(scores: Sequence[Score], floors: Mapping[str, float | None]) -> list[Check]:
    """Return one check for each score that has a floor.

    Args:
        scores: measured scores.
        floors: minimum by name of the score; None for no floor. A score equal to its floor, or
            equal when rounded to two digits, passes.
    """
    checks = []
    for score in scores:
        floor = floors.get(score.name)
        if floor is None:
            continue
        passed = max(score.value, round(score.value, 2)) >= floor
        verb = "reaches" if passed else "is below"
        message = f"{score.name} {score.value:.2f} {verb} the floor of {floor:g}"
        checks.append(Check(f"{score.name} at least {floor:g}", passed, message))
    return checks


def read_baseline(path: Path, texts: Texts) -> list[str]:
    """Return the hypotheses in the report of an earlier evaluation on the same test set.

    Raises:
        NmtError: the report is missing, damaged, of a newer format or of another test set, or
            a score is not a finite number.
    """
    report = _read_report(path)
    for score in report["scores"]:
        value = score.get("value")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise NmtError(
                f"{path}: {score.get('name')} is {value}, not a number",
                "make the baseline again with nmt evaluate",
            )
    for role, digest in texts.sha256().items():
        recorded = report["sha256"].get(role)
        if role == "source" and recorded is None:
            continue  # report of a file of hypotheses; scores do not depend on the source
        if recorded != digest:
            raise NmtError(
                f"{path}: is of another test set: its {role} has SHA-256 {str(recorded)[:12]}…, "
                f"this one {digest[:12]}…",
                "make a baseline on this test set with nmt evaluate",
            )
    hypotheses: list[str] = report["hypotheses"]
    if hash_lines(hypotheses) != report["sha256"].get("hypotheses"):
        raise NmtError(
            f"{path}: damaged: its hypotheses differ from their recorded checksum",
            "restore the file, or make the baseline again with nmt evaluate",
        )
    return hypotheses


def check_drop(
    path: Path, baseline: Sequence[str], hypotheses: Sequence[str], texts: Texts, max_drop: float
) -> Check:
    """Check that BLEU is not more than `max_drop` below the baseline.

    The check fails only if the drop is significant by paired bootstrap (p < 0.05), so noise
    alone does not fail a build.

    Args:
        path: of the baseline, for the message.
        baseline: hypotheses of the baseline.
        hypotheses: new hypotheses.
        texts: test set of both.
        max_drop: points of BLEU, 0 to 100.
    """
    bleu = compare(baseline, [hypotheses], texts.references, test="bs", kinds=["bleu"])[0][0]
    drop = bleu.baseline - bleu.value
    significant = bleu.p_value < SIGNIFICANT
    message = (
        f"BLEU {bleu.value:.2f} against {bleu.baseline:.2f} in {path}, "
        f"{bleu.value - bleu.baseline:+.2f} (p = {bleu.p_value:.4f})"
    )
    if drop > max_drop and significant:
        message += f": a significant drop of more than {max_drop:g}"
    elif drop > max_drop:
        message += f": a drop of more than {max_drop:g}, but not a significant one"
    name = f"BLEU not significantly more than {max_drop:g} below the baseline"
    return Check(name, drop <= max_drop or not significant, message)


def junit(checks: Sequence[Check]) -> bytes:
    """Return the checks as JUnit XML, which CI systems show as tests."""
    failed = sum(not check.passed for check in checks)
    suite = ElementTree.Element(
        "testsuite", name="nmt evaluate", tests=str(len(checks)), failures=str(failed)
    )
    for check in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="nmt.gate", name=check.name)
        if check.passed:
            ElementTree.SubElement(case, "system-out").text = check.message
        else:
            ElementTree.SubElement(case, "failure", message=check.message)
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _read_report(path: Path) -> dict[str, Any]:
    hint = "--baseline takes the report.json of an earlier nmt evaluate"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NmtError(f"{path}: no such file", hint) from None
    except OSError as error:
        raise NmtError(f"{path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise NmtError(f"{path}: not a report: {error}", hint) from None
    if not isinstance(report, dict) or not isinstance(report.get("format"), int):
        raise NmtError(f"{path}: not a report of nmt evaluate", hint)
    if report["format"] > FORMAT:
        raise NmtError(
            f"{path}: report format {report['format']}, this program reads up to {FORMAT}",
            "it was made by a newer nmt: git pull in its clone, and install it again",
        )
    for key, kind in (("scores", list), ("sha256", dict), ("hypotheses", list)):
        if not isinstance(report.get(key), kind):
            raise NmtError(f"{path}: damaged report: {key} is missing", hint)
    return report
