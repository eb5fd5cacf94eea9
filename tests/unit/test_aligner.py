"""The statistical aligner: recovery of a known lexicon, batch invariance, saving and loading."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmt.align import aligner as aligner_module
from nmt.align import learn
from nmt.align.aligner import Aligner
from nmt.data.packed import PackedSet, PackedWriter
from nmt.errors import NmtError
from nmt.symbols import BOS, EOS, PAD
from tests.helpers.toy import add

WORDS = 60
FIRST = 10  # id of the first word
NOISE = FIRST + WORDS  # first id of unaligned target pieces

Links = set[tuple[int, int]]


def synthetic_pair(random: np.random.Generator) -> tuple[list[int], list[int], Links]:
    """Return a pair: each id is mapped to another one, and the halves are sometimes swapped."""
    src = random.integers(FIRST, FIRST + WORDS, random.integers(3, 13)).tolist()
    order = list(range(len(src)))
    if random.random() < 0.4:
        middle = len(src) // 2
        order = order[middle:] + order[:middle]
    trg: list[int] = []
    links = set()
    for position in order:
        if random.random() < 0.15:
            trg.append(NOISE + int(random.integers(3)))
        links.add((position, len(trg)))
        trg.append(FIRST + (src[position] - FIRST + 7) % WORDS)
    return src, trg, links


def synthetic_pairs(pairs: int, seed: int = 1) -> list[tuple[list[int], list[int], Links]]:
    random = np.random.default_rng(seed)
    return [synthetic_pair(random) for _ in range(pairs)]


def pack(folder: Path, pairs: list[tuple[list[int], list[int], Links]]) -> PackedSet:
    with PackedWriter(folder, "train", (NOISE, NOISE + 3)) as writer:
        add(writer, [src for src, _, _ in pairs], [trg for _, trg, _ in pairs])
    return PackedSet.open(folder, "train")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return pack(tmp_path_factory.mktemp("corpus"), synthetic_pairs(1500))


@pytest.fixture(scope="module")
def aligner(corpus: PackedSet) -> Aligner:
    return Aligner.learn(corpus)


def padded(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((len(sentences), max(map(len, sentences))), PAD)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    return ids, ids != PAD


def all_posteriors(aligner: Aligner, pairs: list[tuple[list[int], list[int], Links]]) -> np.ndarray:
    return aligner.posteriors(*padded([s for s, _, _ in pairs]), *padded([t for _, t, _ in pairs]))


def test_a_known_lexicon_and_order_are_recovered(aligner: Aligner) -> None:
    pairs = synthetic_pairs(200, seed=2)
    posteriors = all_posteriors(aligner, pairs)
    predicted = [{(int(j), int(i)) for i, j in np.argwhere(rows > 0.5)} for rows in posteriors]
    correct = sum(len(links & gold) for links, (_, _, gold) in zip(predicted, pairs, strict=True))
    f1 = 2 * correct / (sum(map(len, predicted)) + sum(len(gold) for _, _, gold in pairs))
    assert f1 > 0.97


def test_jumps_disambiguate_repeated_words(aligner: Aligner) -> None:
    src = [FIRST, FIRST + 1, FIRST, FIRST + 2]
    pair = (*padded([src]), *padded([[i + 7 for i in src]]))
    posteriors = aligner.posteriors(*pair)[0]
    assert posteriors.argmax(axis=1).tolist() == [0, 1, 2, 3]
    model1 = Aligner(aligner.lexicon, None).posteriors(*pair)[0]
    assert model1[0, 0] == pytest.approx(model1[0, 2])


def test_rows_of_unaligned_pieces_are_empty(aligner: Aligner) -> None:
    src, trg = [FIRST, FIRST + 1, FIRST + 2], [FIRST + 7, NOISE, FIRST + 8, FIRST + 9]
    row_sums = aligner.posteriors(*padded([src]), *padded([trg]))[0].sum(axis=1)
    assert row_sums[1] < 0.1
    assert (row_sums[[0, 2, 3]] > 0.8).all()


def test_a_pair_alone_equals_the_pair_in_a_padded_batch(aligner: Aligner) -> None:
    pairs = synthetic_pairs(20, seed=3)
    batched = all_posteriors(aligner, pairs)
    for rows, (src, trg, _) in zip(batched, pairs, strict=True):
        alone = aligner.posteriors(*padded([src]), *padded([trg]))[0]
        np.testing.assert_allclose(rows[: len(trg), : len(src)], alone, atol=1e-5)
        assert not rows[len(trg) :].any()
        assert not rows[:, len(src) :].any()


def test_row_sums_are_at_most_1(aligner: Aligner) -> None:
    pairs = synthetic_pairs(100, seed=4)
    posteriors = all_posteriors(aligner, pairs)
    assert posteriors.dtype == np.float32
    assert (posteriors >= 0).all()
    assert posteriors.sum(axis=2).max() <= 1 + 1e-6


def test_bos_and_eos_are_not_aligned(aligner: Aligner) -> None:
    src, trg, _ = synthetic_pairs(1, seed=5)[0]
    plain = aligner.posteriors(*padded([src]), *padded([trg]))[0]
    marked = aligner.posteriors(*padded([[*src, EOS]]), *padded([[BOS, *trg, EOS]]))[0]
    np.testing.assert_allclose(marked[1:-1, :-1], plain, atol=1e-5)
    assert not marked[[0, -1]].any()
    assert not marked[:, -1].any()


def test_unseen_ids_and_empty_sides_are_accepted(aligner: Aligner) -> None:
    src = np.array([[FIRST, 60_000], [PAD, PAD]])
    trg = np.array([[FIRST + 7, 61_000, NOISE], [FIRST, PAD, PAD]])
    posteriors = aligner.posteriors(src, src != PAD, trg, trg != PAD)
    assert np.isfinite(posteriors).all()
    assert posteriors[0, 0, 0] > 0.5
    assert not posteriors[1].any()


def test_an_unseen_target_id_does_not_match_the_next_source_id(aligner: Aligner) -> None:
    """The key of (a, vocabulary + b) differs from that of (a + 1, b)."""
    src, trg = np.array([[FIRST]]), np.array([[NOISE + 4 + FIRST + 8]])
    assert aligner.posteriors(src, src != PAD, trg, trg != PAD).sum() < 0.5


def test_equal_corpus_and_seed_give_equal_bytes(corpus: PackedSet, tmp_path: Path) -> None:
    for name in ("first", "second"):
        Aligner.learn(corpus, pairs=300, seed=4).save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    Aligner.learn(corpus, pairs=300, seed=5).save(tmp_path / "third")
    assert (tmp_path / "first").read_bytes() != (tmp_path / "third").read_bytes()


def test_the_result_does_not_depend_on_the_block_size(
    corpus: PackedSet, aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_KEY_BLOCK", 500)
    small_blocks = Aligner.learn(corpus)
    np.testing.assert_array_equal(small_blocks.lexicon.keys(), aligner.lexicon.keys())
    np.testing.assert_array_equal(small_blocks.lexicon.forward, aligner.lexicon.forward)


def test_a_loaded_aligner_equals_the_saved_one(aligner: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    aligner.save(path)
    pair = (*padded([[FIRST, FIRST + 1]]), *padded([[FIRST + 7, FIRST + 8]]))
    np.testing.assert_array_equal(Aligner.load(path).posteriors(*pair), aligner.posteriors(*pair))


def test_a_changed_byte_is_refused(aligner: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    aligner.save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(NmtError) as caught:
        Aligner.load(path)
    assert str(caught.value.message) == f"{path}: damaged: the checksum does not match"


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 100])
def test_files_of_other_content_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    path.write_bytes(data)
    with pytest.raises(NmtError, match="missing or damaged"):
        Aligner.load(path)


def test_non_finite_values_are_refused(aligner: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    lexicon = replace(aligner.lexicon, forward=aligner.lexicon.forward * np.float32("nan"))
    Aligner(lexicon, aligner.jumps).save(path)
    with pytest.raises(NmtError, match="contains non-finite values"):
        Aligner.load(path)


def test_another_format_is_refused(
    aligner: Aligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "aligner.safetensors"
    monkeypatch.setattr(aligner_module, "FORMAT", 99)
    aligner.save(path)
    monkeypatch.undo()
    with pytest.raises(NmtError) as caught:
        Aligner.load(path)
    assert caught.value.message == f"{path}: format 99, but this program reads 1"


def test_a_corpus_of_long_pairs_is_refused(tmp_path: Path) -> None:
    corpus = pack(tmp_path, [([FIRST] * 81, [FIRST], set())])
    with pytest.raises(NmtError, match="none has 1 to 80 pieces on both sides"):
        Aligner.learn(corpus)
