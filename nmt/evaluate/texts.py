"""The texts of an evaluation: read, and refused where a score would mean nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from tqdm import tqdm

from nmt.data.parallel import check_has_chinese
from nmt.errors import NmtError
from nmt.symbols import SPACE_MARK
from nmt.text.normalise import HAN
from nmt.translate.translator import Translator
from nmt.translate.types import Translation

_HAN_PAIR = re.compile(f"{HAN}(?= ?{HAN})")
_HAN_GAP = re.compile(f"{HAN}(?= {HAN})")
_MOST_GAPS = 0.25  # of neighbouring Han characters; words have under two characters each
_FEWEST_PAIRS = 8  # neighbours before this is judged
_MAX_PIECES = 0.1  # fraction of lines that may look segmented
_PIECES = re.compile(rf"{SPACE_MARK}|@@(?: |$)")


def translate_all(
    translator: Translator, sources: Sequence[str], name: str, batch_size: int = 64
) -> list[Translation]:
    """Translate for evaluation, with a progress bar."""
    stream = translator.stream(sources, batch_size)
    title = f"translating, {name}"
    return list(tqdm(stream, total=len(sources), desc=title, unit=" lines", disable=None))


def check_is_raw(name: str, lines: Sequence[str]) -> None:
    """Refuse text that is still segmented into pieces: its score would be meaningless.

    Up to a tenth of the lines may contain ``@@`` or ``▁``, as a manual might.

    Raises:
        NmtError: more lines do; the first of them is named.
    """
    numbers = [number for number, line in enumerate(lines, start=1) if _PIECES.search(line)]
    if len(numbers) > _MAX_PIECES * len(lines):
        raise NmtError(
            f"{name}:{numbers[0]}: still in pieces ({lines[numbers[0] - 1][:40]!r}), "
            f"as {len(numbers):,} of {len(lines):,} lines",
            "join the pieces to plain text first; scores are computed on raw text only",
        )


def check_is_chinese(name: str, lines: Sequence[str]) -> None:
    """Refuse a source side that is not raw Chinese.

    Raises:
        NmtError: hardly a line holds a Han character, or they are spaced apart.
    """
    check_has_chinese(name, lines, "--src and --ref")
    pairs = sum(len(_HAN_PAIR.findall(line)) for line in lines)
    gaps = sum(len(_HAN_GAP.findall(line)) for line in lines)
    if pairs >= _FEWEST_PAIRS and gaps > _MOST_GAPS * pairs:
        first = next(number for number, line in enumerate(lines, 1) if _HAN_GAP.search(line))
        raise NmtError(
            f"{name}:{first}: Chinese cut into words by spaces ({lines[first - 1][:40]!r}), "
            f"{gaps} of {pairs} neighbouring characters are apart",
            "give the raw text: the network's own tokenizer cuts it",
        )


def check_is_english(name: str, lines: Sequence[str]) -> None:
    """Refuse hypotheses or references that are Chinese: the sides are swapped.

    Raises:
        NmtError: most letters are Han characters.
    """
    text = "".join(lines)
    letters = sum(map(str.isalpha, text))
    han = len(re.findall(HAN, text))
    if han * 2 > letters:
        raise NmtError(
            f"{name}: looks Chinese ({han} of {letters} letters), English is scored here",
            "are the sides swapped? hypotheses and references are English",
        )


def texts_sha256(lines: Sequence[str]) -> str:
    r"""Hex SHA-256 of lines, each with its ``\n``: that of the file they came from."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
