"""Alignment error rate of word links against gold links (Och & Ney 2003)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.align.links import Links, TokenPair
from nmt.data.parallel import check_same_length, read_texts
from nmt.errors import NmtError, where
from nmt.io.read import read_lines

# i-j and i-j-S are sure links; i-j-P, i?j and ipj are possible ones.
_LINK = re.compile(r"([0-9]{1,9})(-|\?|p)([0-9]{1,9})(?:-([SP]))?")


@dataclass(frozen=True)
class Gold:
    """Gold links of one sentence pair, zero-based, source first.

    Attributes:
        sure: unambiguous links.
        possible: all acceptable links, a superset of `sure`.
    """

    sure: Links
    possible: Links


@dataclass(frozen=True)
class AlignmentScore:
    """Corpus-level scores, 0 to 100. A: predicted links, S: sure, P: possible gold links.

    Attributes:
        aer: 100 * (1 - (|A∩S| + |A∩P|) / (|A| + |S|)); lower is better.
        precision: 100 * |A∩P| / |A|.
        recall: 100 * |A∩S| / |S|.
        sentences: number of sentence pairs.
        links: |A|.
    """

    aer: float
    precision: float
    recall: float
    sentences: int
    links: int


def read_gold(path: Path, *, one_based: bool) -> list[Gold]:
    """Read sure and possible links, one sentence pair per line.

    Raises:
        NmtError: the file is missing or empty, or a line contains an invalid link.
    """
    gold = []
    for number, line in enumerate(read_lines(path), start=1):
        sure, possible = set(), set()
        for text in line.split():
            link, is_sure = _parse_link(text, where(path, number), one_based)
            possible.add(link)
            if is_sure:
                sure.add(link)
        gold.append(Gold(sure, possible))
    if not gold:
        raise NmtError(f"{path}: is empty, nothing to score")
    return gold


def read_links(path: Path, *, one_based: bool) -> list[Links]:
    """Read links in Pharaoh format, ``i-j``, one sentence pair per line.

    Raises:
        NmtError: the file is missing or empty, or a line contains an invalid link.
    """
    return [gold.possible for gold in read_gold(path, one_based=one_based)]


def read_token_pairs(src: Path, trg: Path) -> list[TokenPair]:
    """Read parallel sentences in tokens.

    Tokens are separated by ASCII spaces. Other white space, such as U+3000, U+00A0 and U+0085,
    may be part of a token, so that the indices agree with those of other alignment tools.

    Raises:
        NmtError: a file is missing or empty, or the numbers of lines differ.
    """
    src_lines, trg_lines = read_texts(src), read_texts(trg)
    check_same_length([(str(src), src_lines), (str(trg), trg_lines)])
    return [
        (_split_tokens(src_line), _split_tokens(trg_line))
        for src_line, trg_line in zip(src_lines, trg_lines, strict=True)
    ]


def _split_tokens(line: str) -> list[str]:
    return [token for token in line.split(" ") if token]


def alignment_score(links: Sequence[Links], gold: Sequence[Gold]) -> AlignmentScore:
    """Score predicted links. Both sequences have one entry per sentence pair."""
    in_sure = sum(len(a & g.sure) for a, g in zip(links, gold, strict=True))
    in_possible = sum(len(a & g.possible) for a, g in zip(links, gold, strict=True))
    predicted, sure = sum(map(len, links)), sum(len(g.sure) for g in gold)
    return AlignmentScore(
        aer=100 * (1 - (in_sure + in_possible) / (predicted + sure)) if predicted + sure else 0.0,
        precision=100 * in_possible / predicted if predicted else 0.0,
        recall=100 * in_sure / sure if sure else 0.0,
        sentences=len(gold),
        links=predicted,
    )


def check_in_range(name: str, gold: Sequence[Gold], pairs: Sequence[TokenPair]) -> None:
    """Check that every gold link refers to existing tokens.

    Raises:
        NmtError: a link is out of range; the message contains the first one and its line.
    """
    for number, (links, (s, t)) in enumerate(zip(gold, pairs, strict=True), start=1):
        for i, j in sorted(links.possible):
            if i >= len(s) or j >= len(t):
                raise NmtError(
                    f"{name}:{number}: link {i}-{j} (zero-based), but there are {len(s)} source "
                    f"and {len(t)} target tokens",
                    "source comes first; if the file counts from 1, add --one-based",
                )


def _parse_link(text: str, place: str, one_based: bool) -> tuple[tuple[int, int], bool]:
    """Return a link, zero-based, and whether it is sure."""
    match = _LINK.fullmatch(text)
    if match is None:
        raise NmtError(
            f"{place}: {text!r} is not a link",
            "links are written i-j, possible ones i-j-P, separated by spaces",
        )
    source, kind, target, grade = match.groups()
    base = 1 if one_based else 0
    link = (int(source) - base, int(target) - base)
    if min(link) < 0:
        raise NmtError(f"{place}: link {text} has a 0, so the file does not count from 1")
    return link, kind == "-" and grade != "P"
