"""The packed corpus: written and read back; damage is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data.packed import PackedSet, PackedWriter
from nmt.errors import NmtError
from tests.helpers.toy import add

Sentences = list[list[int]]


def pack(folder: Path, src: Sentences, trg: Sentences, vocab: tuple[int, int] = (400, 400)) -> None:
    with PackedWriter(folder, "train", vocab) as out:
        add(out, src, trg)


ids = st.lists(st.integers(0, 399), max_size=5)


@given(st.lists(st.tuples(ids, ids)), st.integers(1, 4))
def test_added_sentences_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[int], list[int]]], step: int
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    with PackedWriter(folder, "train", (400, 400)) as out:
        for start in range(0, len(pairs), step):
            part = pairs[start : start + step]
            add(out, [src for src, _ in part], [trg for _, trg in part])
    packed = PackedSet.open(folder, "train")
    assert len(packed) == len(pairs)
    assert [(packed.src[i].tolist(), packed.trg[i].tolist()) for i in range(len(pairs))] == pairs
    assert packed.src.lengths.tolist() == [len(src) for src, _ in pairs]


def test_ids_are_two_bytes_while_the_vocabulary_allows(tmp_path: Path) -> None:
    pack(tmp_path, [[65535]], [[65536]], (65536, 65537))
    packed = PackedSet.open(tmp_path, "train")
    assert (packed.src.ids.dtype, packed.trg.ids.dtype) == (np.uint16, np.int32)
    assert (packed.src[0].tolist(), packed.trg[0].tolist()) == ([65535], [65536])


def test_ids_are_memory_mapped(tmp_path: Path) -> None:
    pack(tmp_path, [[1, 2]], [[3]])
    assert isinstance(PackedSet.open(tmp_path, "train").src.ids, np.memmap)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    pack(tmp_path, [[1]], [[2]])
    (tmp_path / "train.trg.ends.npy").unlink()
    with pytest.raises(NmtError, match=r"train\.trg\.ends\.npy: missing or damaged") as caught:
        PackedSet.open(tmp_path, "train")
    assert caught.value.hint == "run nmt prepare again"


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    pack(tmp_path, [[1] * 100], [[2]])
    path = tmp_path / "train.src.ids.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(NmtError, match=r"train\.src\.ids\.npy: missing or damaged"):
        PackedSet.open(tmp_path, "train")


def test_files_of_different_corpora_are_refused(tmp_path: Path) -> None:
    for name, count in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        pack(tmp_path / name, [[1]] * count, [[2]] * count)
    (tmp_path / "b" / "train.src.ends.npy").replace(tmp_path / "a" / "train.src.ends.npy")
    with pytest.raises(NmtError, match="ids and sentence ends do not match"):
        PackedSet.open(tmp_path / "a", "train")
    (tmp_path / "b" / "train.src.ids.npy").replace(tmp_path / "a" / "train.src.ids.npy")
    with pytest.raises(NmtError, match="2 source and 1 target sentences in train"):
        PackedSet.open(tmp_path / "a", "train")


SIZES = (2, 3, 4)  # pairs, source ids, target ids


@pytest.mark.parametrize(
    ("sizes", "vocab", "message"),
    [
        ((3, 3, 4), (50, 60), "train: damaged: 2 sentence pairs, not 3"),
        ((2, 4, 4), (50, 60), "train: damaged: 3 source ids, not 4"),
        ((2, 3, 5), (50, 60), "train: damaged: 4 target ids, not 5"),
        (SIZES, (9, 60), "train.src: damaged: id 9 at position 2, the vocabulary has 9 pieces"),
        (SIZES, (50, 7), "train.trg: damaged: id 7 at position 1, the vocabulary has 7 pieces"),
    ],
)
def test_sizes_and_ids_that_do_not_fit_the_manifest_are_refused(
    tmp_path: Path, sizes: tuple[int, int, int], vocab: tuple[int, int], message: str
) -> None:
    pack(tmp_path, [[4, 5], [9]], [[6, 7], [6, 6]])
    packed = PackedSet.open(tmp_path, "train")
    packed.check("train", SIZES, (50, 60))
    with pytest.raises(NmtError) as caught:
        packed.check("train", sizes, vocab)
    assert caught.value.message == message
    assert caught.value.hint == "run nmt prepare again"


def test_overwritten_sentence_ends_are_refused(tmp_path: Path) -> None:
    pack(tmp_path, [[4, 5], [9]], [[6, 7], [6, 6]])
    np.save(tmp_path / "train.src.ends.npy", np.array([3, 3]))
    packed = PackedSet.open(tmp_path, "train")
    with pytest.raises(NmtError, match=r"train\.src: damaged: sentence 1 is empty"):
        packed.check("train", SIZES, (50, 60))
