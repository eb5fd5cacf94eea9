"""Forced decoding: its probabilities and weights are those of the search."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from nmt.data.batches import pad_sources
from nmt.model import Seq2Seq
from nmt.symbols import PAD
from nmt.translate.forced import force
from nmt.translate.search import beam_search

CPU = torch.device("cpu")


def network(attention: Literal["additive", "none"] = "additive") -> Seq2Seq:
    torch.manual_seed(7)
    return Seq2Seq(
        src_vocab=20, trg_vocab=15, attention=attention, embedding_dim=6, encoder_hidden=5,
        encoder_layers=1, decoder_hidden=7, attention_hidden=4, dropout=0.3, word_dropout=0.2,
    ).eval()  # fmt: skip


SOURCES = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15], [4, 4]]


@pytest.mark.parametrize("attention", ["additive", "none"])
def test_the_search_and_forced_decoding_agree(attention: Literal["additive", "none"]) -> None:
    model = network(attention)
    src, mask = pad_sources(SOURCES)
    found = beam_search(
        model, src, mask, beam=4, alpha=0.7, max_lengths=torch.tensor([9] * len(SOURCES)), n_best=4
    )
    for ids, hypotheses in zip(SOURCES, found, strict=True):
        forced = force(model, [(ids, one.ids) for one in hypotheses], CPU)
        for one, hypothesis in zip(forced, hypotheses, strict=True):
            assert one.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-4)
            torch.testing.assert_close(
                one.attention, hypothesis.attention[:, : len(ids)], atol=1e-5, rtol=0
            )


def test_batches_and_neighbours_change_nothing() -> None:
    model = network()
    pairs = [(src, [5, 6, 7][:n] + [8] * n) for n, src in enumerate(SOURCES)]
    alone = [force(model, [pair], CPU)[0] for pair in pairs]
    for size in (1, 2, 64):
        for one, other in zip(alone, force(model, pairs, CPU, size), strict=True):
            torch.testing.assert_close(one.token_log_probs, other.token_log_probs)
            torch.testing.assert_close(one.attention, other.attention)


def test_an_empty_translation_has_the_probability_of_its_end() -> None:
    (one,) = force(network(), [([5, 6], [])], CPU)
    assert one.token_log_probs.shape == (1,)
    assert one.attention.shape == (1, 2)
    assert one.log_prob < 0


def test_probabilities_of_all_continuations_sum_to_one() -> None:
    model = network()
    ends = force(model, [([5, 6], [token]) for token in range(15)], CPU)
    first = torch.stack([one.token_log_probs[0] for one in ends])
    # Every token but EOS is tried as the first one; EOS itself is what is left.
    (empty,) = force(model, [([5, 6], [])], CPU)
    from nmt.symbols import EOS

    first[EOS] = empty.token_log_probs[0]
    assert float(first.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_a_token_left_out_keeps_its_place() -> None:
    """PAD inside a source is a zero vector, not the end of the sentence."""
    src, mask = pad_sources([[5, PAD, 7], [PAD, PAD]])
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    (one,) = force(network(), [([5, PAD, 7], [6])], CPU)
    assert one.attention.shape == (2, 3)
    assert one.attention.sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert src.shape == (2, 3)
