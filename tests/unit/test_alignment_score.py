"""Alignment error rate: parsing, the formula, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt.align.score import (
    Gold,
    alignment_score,
    check_in_range,
    read_gold,
    read_links,
    read_token_pairs,
)
from nmt.errors import NmtError


def test_sure_and_possible_links_are_distinguished(tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text("0-0 1-2-P 2-1-S 3?3 4p4\n\n")
    first, blank = read_gold(path, one_based=False)
    assert first.sure == {(0, 0), (2, 1)}
    assert first.possible == {(0, 0), (1, 2), (2, 1), (3, 3), (4, 4)}
    assert blank == Gold(set(), set())


def test_one_based_links_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text("1-1 2-3\n")
    assert read_links(path, one_based=True) == [{(0, 0), (1, 2)}]


def test_a_zero_in_one_based_links_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gold"
    path.write_text("1-1\n0-1\n")
    with pytest.raises(NmtError, match=r"gold:2: link 0-1 has a 0"):
        read_gold(path, one_based=True)


@pytest.mark.parametrize(
    "text", ["0", "a-b", "0-1-X", "0-1,", "-1-0", "0--1", "٠-١", "1" * 5000 + "-0"]
)
def test_invalid_links_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gold"
    path.write_text(f"0-0 {text}\n")
    with pytest.raises(NmtError, match=r"gold:1: .* is not a link"):
        read_gold(path, one_based=False)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gold").write_text("")
    with pytest.raises(NmtError, match="is empty"):
        read_gold(tmp_path / "gold", one_based=False)


def test_scores_equal_the_formula() -> None:
    # |A| = 3: 2 sure links and 1 only possible; |S| = 4.
    gold = [
        Gold({(0, 0), (1, 1)}, {(0, 0), (1, 1), (1, 2)}),
        Gold({(0, 0), (2, 2)}, {(0, 0), (2, 2)}),
    ]
    score = alignment_score([{(0, 0), (1, 2)}, {(2, 2)}], gold)
    assert score.aer == pytest.approx(100 * (1 - (2 + 3) / (3 + 4)))
    assert score.precision == pytest.approx(100)
    assert score.recall == pytest.approx(50)
    assert (score.sentences, score.links) == (2, 3)


def test_scores_of_perfect_and_of_no_links() -> None:
    gold = [Gold({(0, 0)}, {(0, 0), (1, 1)})]
    assert alignment_score([{(0, 0)}], gold).aer == 0
    assert alignment_score([{(0, 0), (1, 1)}], gold).aer == 0
    assert alignment_score([set()], gold).aer == 100
    assert alignment_score([{(5, 5)}], gold).aer == 100


def test_links_out_of_range_are_refused() -> None:
    gold = [Gold({(0, 0)}, {(0, 0)}), Gold({(1, 2)}, {(1, 2)})]
    with pytest.raises(NmtError, match=r"gold:2: link 1-2 \(zero-based\), but there are 2 source"):
        check_in_range("gold", gold, [(["a"], ["b"]), (["a", "b"], ["c", "d"])])


def test_token_files_must_correspond(tmp_path: Path) -> None:
    (tmp_path / "zh").write_text("我 爱 你\n你 好\n")
    (tmp_path / "en").write_text("I love you\n")
    with pytest.raises(NmtError, match=r"2 lines in .*zh, 1 in .*en"):
        read_token_pairs(tmp_path / "zh", tmp_path / "en")


def test_only_ascii_spaces_separate_tokens(tmp_path: Path) -> None:
    """Other alignment tools count U+3000, U+00A0 and U+0085 as part of a token."""
    (tmp_path / "zh").write_text("我\u3000爱 你 \u3000  好\n", encoding="utf-8")
    (tmp_path / "en").write_text("I\u00a0love you\u0085 all\n", encoding="utf-8")
    assert read_token_pairs(tmp_path / "zh", tmp_path / "en") == [
        (["我\u3000爱", "你", "\u3000", "好"], ["I\u00a0love", "you\u0085", "all"])
    ]
