"""Attention maps: from pieces to the characters and words of the text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.text.normalise import character_origins, normalise
from nmt.translate.attention_map import AttentionMap, join_links, join_maps, map_attention
from nmt.translate.search import Hypothesis

CHINESE = ["我爱中国。", "他爱茶。", "今天很好!", "ABC 12"] * 5
ENGLISH = ["I love China.", "He loves tea.", "It is fine today!"] * 5


def tokenizer(lines: list[str], *, simplify: bool) -> Tokenizer:
    trained, _ = train_tokenizer(
        [normalise(line, simplify=simplify) for line in lines],
        vocab=400, simplify=simplify, character_coverage=1.0, space_first=not simplify, name="x",
    )  # fmt: skip
    return trained


SRC, TRG = tokenizer(CHINESE, simplify=True), tokenizer(ENGLISH, simplify=False)


@pytest.mark.parametrize(
    ("original", "origins"),
    [
        ("我爱", [0, 1]),
        ("  我　爱 ", [2, 3, 4]),  # white space becomes one space and is stripped
        ("ＡＢＣ１２", [0, 1, 2, 3, 4]),  # full width
        ("㈱好", [0, 0, 0, 1]),  # one character becomes three
        ("\u200b我\u200b爱", [1, 3]),  # invisible characters are removed
        ("愛國", [0, 1]),  # Traditional
        ("e\u0301x", [0, 2]),  # composed
        ("ﷺ", [0] * 18),
    ],
)
def test_origins_of_normalised_characters(original: str, origins: list[int]) -> None:
    normalised = normalise(original, simplify=True)
    assert len(normalised) == len(origins)
    assert character_origins(original, normalised, simplify=True) == origins


def align(source: str, hypothesis: Hypothesis) -> AttentionMap:
    return map_attention(source, SRC.pieces(source), hypothesis, SRC, TRG)


def hypothesis(source: str, text: str, seed: int = 1) -> Hypothesis:
    ids = TRG.encode(text)
    torch.manual_seed(seed)
    attention = torch.softmax(2 * torch.randn(len(ids) + 1, len(SRC.encode(source)) + 2), dim=1)
    attention[:, -2:] = 0  # padding
    attention /= attention.sum(dim=1, keepdim=True)
    return Hypothesis(ids, -1.0, -1.0, attention)


@pytest.mark.parametrize("source", ["我爱中国。", "　我愛　中國㈱。", "龘ABC１２!", "\u200b我👍🏽"])
def test_rows_over_characters_sum_to_one(source: str) -> None:
    attention_map = align(source, hypothesis(source, "He loves China, today!"))
    assert attention_map.characters == list(source)
    assert attention_map.words == ["He", "loves", "China,", "today!"]
    assert attention_map.weights.shape == (4, len(source))
    np.testing.assert_allclose(attention_map.weights.sum(axis=1), 1.0, rtol=1e-5)
    for index, character in enumerate(source):
        if character == "\u200b":
            assert not attention_map.weights[:, index].any()


def test_words_average_their_pieces_and_pieces_distribute_weight_over_their_characters() -> None:
    source, text = "我爱中国。", "I love China"
    translation = hypothesis(source, text)
    attention_map = align(source, translation)
    pieces = SRC.pieces(source)
    starts = [i for i, id_ in enumerate(translation.ids) if TRG.piece(id_).startswith("▁")]
    last_word = translation.attention[starts[-1] : len(translation.ids), : len(pieces)].mean(dim=0)
    for piece, weight in zip(pieces, last_word.tolist(), strict=True):
        for at in range(piece.begin, piece.end):
            shared = weight / (piece.end - piece.begin)
            assert attention_map.weights[-1, at] == pytest.approx(shared, rel=1e-5)


def test_a_translation_without_words_has_no_rows() -> None:
    attention_map = align("我爱", hypothesis("我爱", ""))
    assert attention_map.words == []
    assert attention_map.weights.shape == (0, 2)
    assert attention_map.links() == []


def test_links_are_to_all_characters_of_the_strongest_piece_except_spaces() -> None:
    weights = np.array(
        [[0.6, 0.0, 0.2, 0.2], [0.1, 0.5, 0.2, 0.2], [0.1, 0.1, 0.4, 0.4]], dtype=np.float32
    )
    assert AttentionMap(list("我爱中国"), ["I", "love", "China"], weights).links() == [
        (0, 0), (1, 1), (2, 2), (3, 2),
    ]  # fmt: skip
    assert AttentionMap(list("我 中国"), ["I", "love", "China"], weights).links() == [
        (0, 0), (2, 1), (2, 2), (3, 1), (3, 2),
    ]  # fmt: skip


def test_equal_weights_are_linked_nearest_to_the_diagonal() -> None:
    weights = np.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], dtype=np.float32)
    links = AttentionMap(list("他爱他"), ["He", "loves", "him"], weights).links()
    assert links == [(0, 0), (1, 1), (2, 2)]


def test_parts_are_joined_at_their_offsets() -> None:
    first = AttentionMap(list("我爱"), ["I", "love"], np.eye(2, dtype=np.float32))
    second = AttentionMap(list("中国"), ["China"], np.full((1, 2), 0.5, dtype=np.float32))
    whole = join_maps("我爱 中国", [first, second], [0, 3])
    assert whole.words == ["I", "love", "China"]
    assert whole.characters == list("我爱 中国")
    np.testing.assert_array_equal(
        whole.weights, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0.5, 0.5]]
    )
    assert join_maps("", [], []).links() == []
    assert join_links([first, second], [0, 3]) == [(0, 0), (1, 1), (3, 2), (4, 2)]
    assert join_links([], []) == []


def test_a_word_is_linked_by_its_letters_not_by_its_full_stop() -> None:
    """Attention weights of punctuation are the largest."""
    ids = TRG.encode("China.")
    assert any(TRG.piece(id_).strip("▁") == "." for id_ in ids)
    stop = [TRG.piece(id_).strip("▁") == "." for id_ in ids]
    attention = torch.zeros(len(ids) + 1, len(SRC.encode("中国。")))
    for row, is_stop in enumerate(stop):
        attention[row, 0], attention[row, -1] = (0.0, 1.0) if is_stop else (0.6, 0.4)
    attention_map = align("中国。", Hypothesis(ids, -1.0, -1.0, attention))
    assert attention_map.weights[0, :2].sum() == pytest.approx(0.6)
    assert (2, 0) not in attention_map.links()


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("China.", "China"),
        ("China”.", "China"),  # ” in bytes
        ("龘!", "龘"),  # a letter in bytes
        ("$5.", "$5"),
        ("C++,", "C++"),
        ("5%", "5%"),
        ("...", "..."),
    ],
)
def test_pieces_without_letters_digits_or_signs_are_ignored(word: str, kept: str) -> None:
    ids = TRG.encode(word)
    attention = torch.zeros(len(ids) + 1, 1)
    weights = []
    for at in range(len(ids)):
        only = attention.clone()
        only[at] = 1.0
        attention_map = align("我", Hypothesis(ids, -1.0, -1.0, only))
        weights.append(float(attention_map.weights.sum()))
    counted = [id_ for id_, weight in zip(ids, weights, strict=True) if weight]
    assert TRG.decode(counted) == kept
    assert sum(weights) == pytest.approx(1)


def test_a_word_of_punctuation_alone_is_linked() -> None:
    ids = TRG.encode(".")
    attention = torch.ones(len(ids) + 1, len(SRC.encode("。"))) / len(SRC.encode("。"))
    assert align("。", Hypothesis(ids, -1.0, -1.0, attention)).links() == [(0, 0)]


def test_byte_pieces_decode_to_no_control_characters() -> None:
    first, _ = TRG.byte_ids
    ids = [first + byte for byte in (0x00, 0x07, 0x1B, 0x7F, 0x41)]
    assert TRG.decode(ids) == "A"
