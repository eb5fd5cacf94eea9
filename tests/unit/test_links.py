"""Word links: tokens to text and back, and which links are made from weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nmt.align.links import best_links, join_tokens, pharaoh, token_weights
from nmt.translate.forced import force
from nmt.translate.translator import Translator


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("我 爱 中国 。", "我爱中国。"),
        ("3月 22日 , NBA 和 IBM Watson", "3月22日, NBA和IBM Watson"),
        ("I do n't like Tom 's book , really .", "I don't like Tom's book, really."),
        ("He said : `` yes '' -LRB- twice -RRB- !", 'He said: " yes " (twice)!'),
        ("costs $ 5 or 6 %", "costs $5 or 6%"),
        ("", ""),
    ],
)
def test_tokens_become_plain_text(tokens: str, text: str) -> None:
    joined = join_tokens(tokens.split())
    assert joined.text == text
    assert len(joined.owner) == len(text)
    for number, token in enumerate(tokens.split()):
        kept = "".join(c for c, owner in zip(text, joined.owner, strict=True) if owner == number)
        assert kept in (token, "(", ")", '"')


def test_spaces_belong_to_no_token() -> None:
    assert join_tokens(["a", "b"]).owner == [0, -1, 1]


def test_each_target_token_is_linked_to_its_largest_weight() -> None:
    weights = np.array([[0.9, 0.1, 0.0], [0.1, 0.1, 0.8], [0.0, 0.9, 0.1]])
    assert best_links(weights) == {(0, 0), (2, 1), (1, 2)}


def test_equal_weights_go_to_the_diagonal() -> None:
    assert best_links(np.ones((3, 3))) == {(0, 0), (1, 1), (2, 2)}


def test_no_weight_no_link() -> None:
    weights = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert best_links(weights) == {(1, 1)}
    assert best_links(np.zeros((2, 0))) == set()


def test_pharaoh_is_sorted_and_based() -> None:
    assert pharaoh({(2, 0), (0, 1), (0, 0)}, one_based=False) == "0-0 0-1 2-0"
    assert pharaoh({(2, 0), (0, 1)}, one_based=True) == "1-2 3-1"
    assert pharaoh(set(), one_based=False) == ""


def test_attention_weights_are_what_forced_decoding_looked_at(toy_run: Path) -> None:
    translator = Translator.load(toy_run, "cpu")
    source, text = "我爱中国。", "I love China."
    ids = (translator.src.encode(source), translator.trg.encode(text))
    (forced,) = force(translator.model, [ids], torch.device("cpu"))
    rows = [n for n, piece in enumerate(translator.trg.pieces(text)) if piece.end > piece.begin]
    seen = forced.attention[rows].mean(dim=0).tolist()
    pairs = [(list(source), [text]), (list(source), text.split())]  # as one token, and as three
    whole, words = token_weights(translator, pairs, method="attention")
    found = [whole[0, p.begin : p.end].sum() for p in translator.src.pieces(source)]
    assert found == pytest.approx(seen, abs=1e-3)
    assert words.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-3)
