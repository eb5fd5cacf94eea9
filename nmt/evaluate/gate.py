"""The quality gate for CI: floors, and no significant drop below a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from nmt.errors import NmtError
from nmt.evaluate.inputs import Texts
from nmt.evaluate.metrics import Score, compare
from nmt.evaluate.tables import SIGNIFICANT
from nmt.evaluate.texts import texts_sha256

_METRIC = "BLEU"

FORMAT = 1  # of report.json


@dataclass(frozen=True)
class Check:
    """One condition of the gate.

    Attributes:
        name: what was asked.
        passed: whether it holds.
        message: what was found, with the numbers.
    """

    name: str
    passed: bool
    message: str


def floors(scores: Sequence[Score], wanted: Mapping[str, float | None]) -> list[Check]:
    """One check for each score that has a floor.

    Args:
        scores: as measured.
        wanted: lowest value allowed by the name of the score; None for no floor. A
            score equal to its floor passes.
    """
    checks = []
    for score in scores:
        floor = wanted.get(score.name)
        if floor is None:
            continue
        passed = max(score.value, round(score.value, 2)) >= floor  # as measured, or as shown
        said = "reaches" if passed else "is below"
        message = f"{score.name} {score.value:.2f} {said} the floor of {floor:g}"
        checks.append(Check(f"{score.name} at least {floor:g}", passed, message))
    return checks


def read_baseline(path: Path, texts: Texts) -> list[str]:
    """The hypotheses that an earlier report holds, for the same test set.

    Raises:
        NmtError: missing, damaged, of a newer format, with a score that is no number,
            or made on another test set.
    """
    report = _read(path)
    for score in report["scores"]:
        value = score.get("value")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise NmtError(
                f"{path}: {score.get('name')} is {value}, not a number",
                "make the baseline again with nmt evaluate",
            )
    for role, digest in texts.sha256().items():
        other = report["sha256"].get(role)
        if role == "source" and other is None:
            continue  # made of hypotheses alone; scores need no source
        if other != digest:
            raise NmtError(
                f"{path}: is of another test set: its {role} has SHA-256 {str(other)[:12]}…, "
                f"this one {digest[:12]}…",
                "make a baseline on this test set with nmt evaluate",
            )
    hypotheses: list[str] = report["hypotheses"]
    if texts_sha256(hypotheses) != report["sha256"].get("hypotheses"):
        raise NmtError(f"{path}: damaged: its hypotheses don't have the checksum recorded")
    return hypotheses


def no_drop(
    path: Path, baseline: Sequence[str], hypotheses: Sequence[str], texts: Texts, most: float
) -> Check:
    """Check that BLEU has not dropped by more than `most` below the baseline.

    A drop counts only if paired bootstrap finds it significant (p < 0.05): a smaller
    sample of luck than that stops nobody's work.

    Args:
        path: of the baseline, for the message.
        baseline: its hypotheses.
        hypotheses: those of now.
        texts: both were made for.
        most: points of BLEU, 0 to 100.
    """
    found = compare(baseline, [hypotheses], texts.references, test="bs", kinds=["bleu"])[0][0]
    drop = found.baseline - found.value
    significant = found.p_value < SIGNIFICANT
    message = (
        f"{_METRIC} {found.value:.2f} against {found.baseline:.2f} in {path}, "
        f"{found.value - found.baseline:+.2f} (p = {found.p_value:.4f})"
    )
    if drop > most and significant:
        message += f": a significant drop of more than {most:g}"
    elif drop > most:
        message += f": a drop of more than {most:g}, but not a significant one"
    name = f"{_METRIC} not significantly more than {most:g} below the baseline"
    return Check(name, drop <= most or not significant, message)


def junit(checks: Sequence[Check]) -> bytes:
    """The checks in the XML that CI systems read as tests."""
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


def _read(path: Path) -> dict[str, Any]:
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
