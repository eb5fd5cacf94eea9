from __future__ import annotations

from nmt.config import CleanConfig
from nmt.prepare.chunks import clean_chunk, normalised_pair, raw_pair

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
