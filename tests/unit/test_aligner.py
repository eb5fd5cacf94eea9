"""The statistical aligner: a known lexicon comes back, and a pair is the same in any batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nmt.align import aligner as files
from nmt.align import learn
from nmt.align.aligner import Aligner
from nmt.data.packed import PackedSet, PackedWriter
from nmt.errors import NmtError
from nmt.symbols import BOS, EOS, PAD
from tests.helpers.toy import add

WORDS = 60
FIRST = 10  # ids below are no words
NOISE = FIRST + WORDS  # target pieces from here on translate nothing

Links = set[tuple[int, int]]


def translate(random: np.random.Generator) -> tuple[list[int], list[int], Links]:
    """A made-up pair: word w becomes w shifted; the halves change places now and then."""
    src = random.integers(FIRST, FIRST + WORDS, random.integers(3, 13)).tolist()
    order = list(range(len(src)))
    if random.random() < 0.4:
        middle = len(src) // 2
        order = order[middle:] + order[:middle]
    trg: list[int] = []
    links = set()
    for place in order:
        if random.random() < 0.15:
            trg.append(NOISE + int(random.integers(3)))
        links.add((place, len(trg)))
        trg.append(FIRST + (src[place] - FIRST + 7) % WORDS)
    return src, trg, links


def made_up(pairs: int, seed: int = 1) -> list[tuple[list[int], list[int], Links]]:
    random = np.random.default_rng(seed)
    return [translate(random) for _ in range(pairs)]


def pack(folder: Path, pairs: list[tuple[list[int], list[int], Links]]) -> PackedSet:
    with PackedWriter(folder, "train", (NOISE, NOISE + 3)) as writer:
        add(writer, [src for src, _, _ in pairs], [trg for _, trg, _ in pairs])
    return PackedSet.open(folder, "train")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> PackedSet:
    return pack(tmp_path_factory.mktemp("corpus"), made_up(1500))


@pytest.fixture(scope="module")
def aligner(corpus: PackedSet) -> Aligner:
    return Aligner.learn(corpus)


def padded(
    sentences: list[list[int]],
) -> tuple[np.ndarray, np.ndarray]:
    longest = max(map(len, sentences))
    ids = np.full((len(sentences), longest), PAD)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    return ids, ids != PAD


def test_a_known_lexicon_and_order_come_back(aligner: Aligner) -> None:
    fresh = made_up(200, seed=2)
    found = aligner.posteriors(*padded([s for s, _, _ in fresh]), *padded([t for _, t, _ in fresh]))
    made = [{(int(j), int(i)) for i, j in np.argwhere(rows > 0.5)} for rows in found]
    right = sum(len(links & gold) for links, (_, _, gold) in zip(made, fresh, strict=True))
    f1 = 2 * right / (sum(map(len, made)) + sum(len(gold) for _, _, gold in fresh))
    assert f1 > 0.97


def test_jumps_disambiguate_repeated_words(aligner: Aligner) -> None:
    """The same word twice: only order says which is which."""
    src = [FIRST, FIRST + 1, FIRST, FIRST + 2]
    pair = (*padded([src]), *padded([[i + 7 for i in src]]))
    found = aligner.posteriors(*pair)[0]
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]
    model1 = Aligner(aligner.lexicon, None).posteriors(*pair)[0]
    assert model1[0, 0] == pytest.approx(model1[0, 2])


def test_pieces_that_translate_nothing_have_empty_rows(aligner: Aligner) -> None:
    src, trg = [FIRST, FIRST + 1, FIRST + 2], [FIRST + 7, NOISE, FIRST + 8, FIRST + 9]
    found = aligner.posteriors(*padded([src]), *padded([trg]))[0]
    assert found.sum(axis=1)[1] < 0.1
    assert (found.sum(axis=1)[[0, 2, 3]] > 0.8).all()


def test_a_pair_alone_is_the_pair_in_a_padded_batch(aligner: Aligner) -> None:
    pairs = made_up(20, seed=3)
    together = aligner.posteriors(
        *padded([s for s, _, _ in pairs]), *padded([t for _, t, _ in pairs])
    )
    for rows, (src, trg, _) in zip(together, pairs, strict=True):
        alone = aligner.posteriors(*padded([src]), *padded([trg]))[0]
        np.testing.assert_allclose(rows[: len(trg), : len(src)], alone, atol=1e-5)
        assert not rows[len(trg) :].any()
        assert not rows[:, len(src) :].any()


def test_rows_are_no_more_than_whole(aligner: Aligner) -> None:
    pairs = made_up(100, seed=4)
    found = aligner.posteriors(*padded([s for s, _, _ in pairs]), *padded([t for _, t, _ in pairs]))
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert found.sum(axis=2).max() <= 1 + 1e-6


def test_end_and_beginning_are_not_aligned(aligner: Aligner) -> None:
    src, trg, _ = made_up(1, seed=5)[0]
    plain = aligner.posteriors(*padded([src]), *padded([trg]))[0]
    found = aligner.posteriors(*padded([[*src, EOS]]), *padded([[BOS, *trg, EOS]]))[0]
    np.testing.assert_allclose(found[1:-1, :-1], plain, atol=1e-5)
    assert not found[[0, -1]].any()
    assert not found[:, -1].any()


def test_unknown_ids_and_empty_sides_are_no_error(aligner: Aligner) -> None:
    src = np.array([[FIRST, 60_000], [PAD, PAD]])
    trg = np.array([[FIRST + 7, 61_000, NOISE], [FIRST, PAD, PAD]])
    found = aligner.posteriors(src, src != PAD, trg, trg != PAD)
    # The key of (a, vocabulary + b) must not be taken for that of (a + 1, b).
    beyond = NOISE + 4 + FIRST + 8
    taken = aligner.posteriors(src[:1, :1], src[:1, :1] > 0, np.array([[beyond]]), trg[:1, :1] > 0)
    assert taken.sum() < 0.5
    assert np.isfinite(found).all()
    assert found[0, 0, 0] > 0.5
    assert not found[1].any()


def test_same_corpus_same_bytes(corpus: PackedSet, tmp_path: Path) -> None:
    for name in ("one", "two"):
        Aligner.learn(corpus, pairs=300, seed=4).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    Aligner.learn(corpus, pairs=300, seed=5).save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "three").read_bytes()


def test_the_key_block_changes_nothing(
    corpus: PackedSet, aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "_KEY_BLOCK", 500)
    other = Aligner.learn(corpus)
    np.testing.assert_array_equal(other.lexicon.keys(), aligner.lexicon.keys())
    np.testing.assert_array_equal(other.lexicon.forward, aligner.lexicon.forward)


def test_saved_and_loaded_is_the_same(aligner: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    aligner.save(path)
    pair = (*padded([[FIRST, FIRST + 1]]), *padded([[FIRST + 7, FIRST + 8]]))
    np.testing.assert_array_equal(Aligner.load(path).posteriors(*pair), aligner.posteriors(*pair))


def test_a_changed_byte_is_found(aligner: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "aligner.safetensors"
    aligner.save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(NmtError) as caught:
        Aligner.load(path)
    assert str(caught.value.message) == f"{path}: damaged: it does not have the checksum recorded"


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 100])
def test_no_aligner_at_all(data: bytes, tmp_path: Path) -> None:
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


def test_another_format(aligner: Aligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "aligner.safetensors"
    monkeypatch.setattr(files, "FORMAT", 99)
    aligner.save(path)
    monkeypatch.undo()
    with pytest.raises(NmtError) as caught:
        Aligner.load(path)
    assert caught.value.message == f"{path}: format 99, but this program reads 1"


def test_nothing_short_enough(tmp_path: Path) -> None:
    corpus = pack(tmp_path, [([FIRST] * 81, [FIRST], set())])
    with pytest.raises(NmtError, match="none has 1 to 80 pieces on both sides"):
        Aligner.learn(corpus)
