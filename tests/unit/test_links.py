"""Joining tokens to text, and the Pharaoh format."""

from __future__ import annotations

import pytest

from nmt.align.links import join_tokens, pharaoh


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
def test_tokens_are_joined_to_plain_text(tokens: str, text: str) -> None:
    joined = join_tokens(tokens.split())
    assert joined.text == text
    assert len(joined.token_indices) == len(text)
    for number, token in enumerate(tokens.split()):
        kept = "".join(
            c for c, index in zip(text, joined.token_indices, strict=True) if index == number
        )
        assert kept in (token, "(", ")", '"')


def test_spaces_belong_to_no_token() -> None:
    assert join_tokens(["a", "b"]).token_indices == [0, -1, 1]


def test_pharaoh_is_sorted_and_based() -> None:
    assert pharaoh({(2, 0), (0, 1), (0, 0)}, one_based=False) == "0-0 0-1 2-0"
    assert pharaoh({(2, 0), (0, 1)}, one_based=True) == "1-2 3-1"
    assert pharaoh(set(), one_based=False) == ""
