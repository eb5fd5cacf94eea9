"""How good word links are: alignment error rate against links made by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt.align.links import Links
from nmt.errors import NmtError, where
from nmt.evaluate.texts import check_same_length, read_texts
from nmt.io.read import read_lines

# i-j and i-j-S are sure, i-j-P, i?j and ipj possible: the ways they are written.
_LINK = re.compile(r"(\d+)(-|\?|p)(\d+)(?:-([SP]))?")


@dataclass(frozen=True)
class Gold:
    """Links made by hand for one sentence, zero-based, source first.

    Attributes:
        sure: links everyone would make.
        possible: links one may make; holds the sure ones too.
    """

    sure: Links
    possible: Links


@dataclass(frozen=True)
class AlignmentScore:
    """Och & Ney (2003), section 5: all three in 0 to 100, over the links of all sentences.

    Attributes:
        aer: 100 * (1 - (|A∩S| + |A∩P|) / (|A| + |S|)); lower is better.
        precision: |A∩P| / |A|.
        recall: |A∩S| / |S|.
        sentences: how many.
        links: |A|, links scored.
    """

    aer: float
    precision: float
    recall: float
    sentences: int
    links: int


def read_gold(path: Path, *, one_based: bool) -> list[Gold]:
    """Read sure and possible links, one sentence a line.

    Raises:
        NmtError: missing, empty, or something that is no link; names the line.
    """
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        sure, possible = set(), set()
        for text in line.split():
            link, is_sure = _parse(text, where(path, number), one_based)
            possible.add(link)
            if is_sure:
                sure.add(link)
        found.append(Gold(sure, possible))
    if not found:
        raise NmtError(f"{path}: is empty, nothing to score")
    return found


def read_links(path: Path, *, one_based: bool) -> list[Links]:
    """Read links in Pharaoh's form, ``i-j``, one sentence a line.

    Raises:
        NmtError: missing, empty, or something that is no link; names the line.
    """
    return [gold.possible for gold in read_gold(path, one_based=one_based)]


def read_token_pairs(src: Path, trg: Path) -> list[tuple[list[str], list[str]]]:
    """Sentences in tokens, separated by spaces, with their translations.

    Raises:
        NmtError: missing, empty, or unequal numbers of lines.
    """
    named = [(str(path), read_texts(path)) for path in (src, trg)]
    check_same_length(named)
    (_, sources), (_, targets) = named
    return [(s.split(), t.split()) for s, t in zip(sources, targets, strict=True)]


def alignment_score(links: Sequence[Links], gold: Sequence[Gold]) -> AlignmentScore:
    """Score links; as many sentences on both sides."""
    in_sure = sum(len(a & g.sure) for a, g in zip(links, gold, strict=True))
    in_possible = sum(len(a & g.possible) for a, g in zip(links, gold, strict=True))
    made, sure = sum(map(len, links)), sum(len(g.sure) for g in gold)
    return AlignmentScore(
        aer=100 * (1 - (in_sure + in_possible) / (made + sure)) if made + sure else 0.0,
        precision=100 * in_possible / made if made else 0.0,
        recall=100 * in_sure / sure if sure else 0.0,
        sentences=len(gold),
        links=made,
    )


def check_in_range(
    name: str, gold: Sequence[Gold], pairs: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> None:
    """Refuse links to tokens that aren't there: sides or base are mistaken.

    Raises:
        NmtError: naming the first such line and link.
    """
    for number, (links, (s, t)) in enumerate(zip(gold, pairs, strict=True), start=1):
        for i, j in sorted(links.possible):
            if i >= len(s) or j >= len(t):
                raise NmtError(
                    f"{name}:{number}: link {i}-{j} (zero-based), but there are {len(s)} source "
                    f"and {len(t)} target tokens",
                    "source comes first; if the file counts from 1, give --one-based",
                )


def _parse(text: str, place: str, one_based: bool) -> tuple[tuple[int, int], bool]:
    match = _LINK.fullmatch(text)
    if match is None:
        raise NmtError(
            f"{place}: {text!r} is no link",
            "links are written i-j, possible ones i-j-P, separated by spaces",
        )
    source, kind, target, grade = match.groups()
    base = 1 if one_based else 0
    link = (int(source) - base, int(target) - base)
    if min(link) < 0:
        raise NmtError(f"{place}: link {text} has a 0, so the file does not count from 1")
    return link, kind == "-" and grade != "P"
