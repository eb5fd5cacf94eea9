"""Evaluating a run or a file of hypotheses, and the JSON report of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

import nmt
from nmt.errors import NmtError
from nmt.evaluate.metrics import Score
from nmt.symbols import SPACE_MARK
from nmt.text import read_lines, replacing
from nmt.translate.translator import Translator

FORMAT = 1


def translate_all(translator: Translator, sources: Sequence[str], batch_size: int) -> list[str]:
    """Translate for evaluation, with a progress bar."""
    stream = translator.stream(sources, batch_size)
    bar = tqdm(stream, total=len(sources), desc="translating", unit=" lines", disable=None)
    return [translation.text for translation in bar]


def read_texts(path: Path) -> list[str]:
    """Lines of a hypothesis or reference file.

    Raises:
        NmtError: missing, not UTF-8, or empty.
    """
    lines = list(read_lines(path))
    if not lines:
        raise NmtError(f"{path}: is empty, nothing to score")
    return lines


def check_same_length(named: Mapping[str, Sequence[str]]) -> None:
    """Refuse texts of different lengths, naming both.

    Raises:
        NmtError: with both numbers.
    """
    (first, lines), *others = named.items()
    for name, other in others:
        if len(other) != len(lines):
            raise NmtError(
                f"{len(lines)} lines in {first}, {len(other)} in {name}",
                "the files must correspond line by line",
            )


def check_is_raw(name: str, lines: Sequence[str]) -> None:
    """Refuse text that is still cut into pieces: its score would mean nothing.

    Raises:
        NmtError: naming the first such line.
    """
    for number, line in enumerate(lines, start=1):
        if SPACE_MARK in line or "@@ " in line or line.endswith("@@"):
            raise NmtError(
                f"{name}:{number}: still in pieces ({line[:40]!r})",
                "join the pieces back to plain text first; scores are made on raw text only",
            )


def make_report(
    scores: Sequence[Score],
    texts: Mapping[str, Sequence[str]],
    details: dict[str, Any],
) -> dict[str, Any]:
    """All that is needed to trust and to repeat the scores.

    Args:
        scores: as measured.
        texts: source, reference and hypotheses, as far as there are; hashed.
        details: of the model and the search.
    """
    return {
        "format": FORMAT,
        "program": nmt.__version__,
        "segments": len(next(iter(texts.values()))),
        "scores": [asdict(one) for one in scores],
        "sha256": {name: _sha256(lines) for name, lines in texts.items()},
        **details,
    }


def write_report(folder: Path, report: dict[str, Any], hypotheses: Sequence[str]) -> None:
    """Write ``hypotheses.txt`` and ``report.json`` into `folder`.

    Raises:
        NmtError: it can't be written.
    """
    with replacing(folder / "hypotheses.txt") as file:
        file.writelines(f"{line}\n".encode() for line in hypotheses)
    with replacing(folder / "report.json") as file:
        file.write((json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode())


def _sha256(lines: Sequence[str]) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
