"""Where pairs come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.config.sources import HskSource, ParallelSource, TsvSource
from nmt.errors import NmtError
from nmt.prepare.readers.hsk import senses
from nmt.prepare.readers.po import read_po
from nmt.prepare.sources import Pair, describe, read_extra_pairs, read_pairs

# A cell of a table: anything but what ends a cell or a line.
cells = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\t\n"), max_size=8
)


@given(st.lists(st.tuples(cells, cells)))
def test_a_table_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    # The \r that a line from Windows may end with is not text; nor is a leading mark.
    pairs = [(a.lstrip("\ufeff"), b.rstrip("\r")) for a, b in pairs]
    path.write_bytes("".join(f"{a}\t{b}\n" for a, b in pairs).encode())
    assert list(read_pairs(TsvSource(source="tsv", path=path))) == pairs


def test_two_files_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.zh").write_text("一\n\n三\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("one\ntwo\nthree", encoding="utf-8")
    source = ParallelSource(source="parallel", src=tmp_path / "a.zh", trg=tmp_path / "a.en")
    assert list(read_pairs(source)) == [("一", "one"), ("", "two"), ("三", "three")]


def test_a_blank_line_is_an_empty_pair_only_in_two_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("一\tone\n\n", encoding="utf-8")
    with pytest.raises(NmtError, match=r"a\.tsv:2: 1 columns, 2 are needed"):
        list(read_pairs(TsvSource(source="tsv", path=path)))


def test_the_sample_has_its_sentences_and_its_glosses() -> None:
    pytest.importorskip("hsk_sentences_audio")
    source = HskSource(source="hsk", glosses=True)
    pairs = list(read_pairs(source))
    assert len(pairs) == 4354
    assert all(isinstance(pair, Pair) and pair.src for pair in pairs)
    assert sum(pair.trg == "" for pair in pairs) == 80  # not translated yet
    assert not any("placeholder" in pair.trg for pair in pairs)
    extra = list(read_extra_pairs(source))
    assert ("爱", "love") in extra
    assert list(read_extra_pairs(HskSource(source="hsk", glosses=False))) == []
    assert describe(source) == "hsk-sentences-audio 1.0.0 (CC-BY-SA 4.0)"


@pytest.mark.parametrize(
    ("gloss", "expected"),
    [
        ("to like; to be fond of", ["like", "be fond of"]),
        ("one (number); a; an", ["one", "a"]),
        ("(particle)", []),
    ],
)
def test_senses(gloss: str, expected: list[str]) -> None:
    assert senses(gloss) == expected


def test_a_fuzzy_entry_counts_as_empty(tmp_path: Path) -> None:
    pytest.importorskip("translate.storage.po")
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    body = 'msgid "Cat"\nmsgstr "猫"\n\n#, fuzzy\nmsgid "Dog"\nmsgstr "猫"\n'
    (tmp_path / "a.po").write_text(head + body, encoding="utf-8")
    assert list(read_po(tmp_path / "a.po")) == [("猫", "Cat"), ("", "Dog")]
