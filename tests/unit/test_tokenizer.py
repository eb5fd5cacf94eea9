"""Text to pieces and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from nmt import symbols
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import NmtError
from nmt.text.normalise import normalise

ZH = [f"我{verb}{noun}{mark}" for verb in "看买画找" for noun in "猫狗书茶花山" for mark in "。!?"]
EN = [f"I {verb} the {noun}." for verb in ("see", "buy", "draw") for noun in ("cat", "dog", "tea")]


def make(lines: list[str], vocab: int, *, chinese: bool) -> tuple[Tokenizer, str | None]:
    return train_tokenizer(
        iter(lines), vocab=vocab, simplify=chinese, character_coverage=1.0,
        space_first=not chinese, name="data.x_vocab",
    )  # fmt: skip


@pytest.fixture(scope="module")
def zh() -> Tokenizer:
    return make(ZH, 285, chinese=True)[0]


@pytest.fixture(scope="module")
def en() -> Tokenizer:
    return make(EN, 290, chinese=False)[0]


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_round_trip_on_any_text(zh: Tokenizer, en: Tokenizer, text: str) -> None:
    for tokenizer in (zh, en):
        ids = tokenizer.encode(text)
        assert symbols.UNK not in ids
        decoded = tokenizer.decode(ids)
        assert "▁" not in decoded
        if "▁" not in tokenizer.normalise(text) and "\ufffd" not in text:
            assert decoded == tokenizer.normalise(text)


@pytest.mark.parametrize("text", ["我看猫。", "ＡＢＣ１２", "龘䶮𠮷", "a我b 貓", "", "  "])
def test_round_trip_by_example(zh: Tokenizer, text: str) -> None:
    assert zh.decode(zh.encode(text)) == normalise(text, simplify=True)


@given(text=st.text(alphabet="我看猫龘a A１é👍 "))
def test_pieces_cover_the_normalised_text_without_gaps(
    zh: Tokenizer, en: Tokenizer, text: str
) -> None:
    for tokenizer in (zh, en):
        normalised = tokenizer.normalise(text)
        pieces = tokenizer.pieces(text)
        assert [piece.id for piece in pieces] == tokenizer.encode(text)
        covered = [i for piece in pieces for i in range(piece.begin, piece.end)]
        assert sorted(set(covered)) == list(range(len(normalised)))


def test_encode_all_equals_encode_of_each(zh: Tokenizer) -> None:
    texts = [*ZH, "", "龘"]
    assert zh.encode_all(texts) == [zh.encode(text) for text in texts]


def test_decoding_ignores_special_ids_and_incomplete_bytes(zh: Tokenizer) -> None:
    first_byte = zh.encode("龘")[0]
    ids = [symbols.BOS, *zh.encode("我看"), first_byte, symbols.UNK, symbols.EOS, symbols.PAD]
    assert zh.decode(ids) == "我看"


def test_training_twice_gives_the_same_model() -> None:
    first, _ = train_tokenizer(
        iter(ZH), vocab=285, simplify=True, character_coverage=1.0, space_first=False, name="x"
    )
    second, _ = make(ZH, 285, chinese=True)
    assert first.model == second.model


def test_a_vocabulary_too_large_for_the_text_is_a_warning() -> None:
    tokenizer, warning = make(ZH, 5000, chinese=True)
    assert warning == (
        f"data.x_vocab: the corpus has text for {len(tokenizer)} pieces only; using these, not 5000"
    )


def test_a_vocabulary_too_small_for_the_characters_is_an_error() -> None:
    with pytest.raises(NmtError, match=r"data\.x_vocab: 262 pieces, but the characters") as caught:
        make(ZH, 262, chinese=True)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("set data.x_vocab to at least ")


def test_an_automatic_vocabulary_grows_to_hold_all_characters() -> None:
    tokenizer, _ = train_tokenizer(
        iter(ZH), vocab=262, grow=True, simplify=True, character_coverage=1.0, space_first=False,
        name="x",
    )  # fmt: skip
    assert len(tokenizer) > 262
    assert tokenizer.decode(tokenizer.encode(ZH[0])) == ZH[0]


def test_other_files_are_not_loaded(tmp_path: Path, zh: Tokenizer) -> None:
    path = tmp_path / "zh.model"
    path.write_bytes(zh.model)
    assert Tokenizer.load(path, simplify=True).sha256 == zh.sha256
    path.write_bytes(zh.model[:100])
    with pytest.raises(NmtError, match="not a SentencePiece model, or damaged"):
        Tokenizer.load(path, simplify=True)
    with pytest.raises(NmtError, match="No such file"):
        Tokenizer.load(tmp_path / "no.model", simplify=True)


def test_a_model_with_other_special_pieces_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.model"
    with path.open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(ZH), model_writer=out, vocab_size=30, minloglevel=2,
            hard_vocab_limit=False,
        )  # fmt: skip
    with pytest.raises(NmtError, match="its special pieces are") as caught:
        Tokenizer.load(path, simplify=True)
    assert caught.value.hint == "train the model with nmt prepare"
