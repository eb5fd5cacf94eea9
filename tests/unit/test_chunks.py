from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nmt.config.schema import CleanConfig
from nmt.prepare.chunks import clean_chunk, normalised_pair, raw_pair
from nmt.prepare.drops import EXAMPLES, Drops
from nmt.prepare.pair import Pair

PAIRS = [(f"我有{n}本书。", f"I have {n} books.") for n in range(11, 211)]


def test_a_share_of_training_sources_loses_its_final_mark() -> None:
    lines = clean_chunk(CleanConfig(), True, 0.3, PAIRS).lines.splitlines(keepends=True)
    unmarked = [line for line in lines if not normalised_pair(line)[0].endswith("。")]
    assert 30 <= len(unmarked) <= 90
    for line in unmarked:
        assert normalised_pair(line)[1].endswith(".")  # the target keeps its own
        assert raw_pair(line)[0].endswith("。")  # and dev and test are the raw text


def test_no_share_changes_nothing() -> None:
    lines = clean_chunk(CleanConfig(), True, 0.0, PAIRS).lines.splitlines(keepends=True)
    assert all(normalised_pair(line)[0].endswith("。") for line in lines)


def test_a_source_of_marks_alone_is_kept() -> None:
    config = CleanConfig(require_han=False)
    lines = clean_chunk(config, True, 1.0, [("?!", "What?!")]).lines
    assert normalised_pair(lines)[0] == "?!"


@given(st.lists(st.integers(0, 20), max_size=40), st.integers(0, 40))
def test_examples_are_of_all_the_corpus_however_it_is_divided(numbers: list[int], cut: int) -> None:
    whole, first, second = Drops(), Drops(), Drops()
    for place, number in enumerate(numbers):
        for drops in (whole, first if place < cut else second):
            drops.drop("too long", Pair(f"第{number}句", f"No. {number}"))
    first.add(second)
    assert first.examples("too long") == whole.examples("too long")
    assert len(set(whole.examples("too long"))) == min(EXAMPLES, len(set(numbers)))
    assert first.counts.total() == len(numbers)
