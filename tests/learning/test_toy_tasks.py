"""Small models learn to copy, to reverse, and to overfit one batch."""

from __future__ import annotations

import random

import pytest
import torch

from nmt.config.schema import ModelConfig
from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.symbols import EOS
from nmt.train.loss import batch_loss
from nmt.translate.search import beam_search
from tests.helpers.networks import batch_of

VOCAB = 14


def toy_batch(reverse: bool, size: int, seed: int) -> tuple[Batch, list[list[int]]]:
    draw = random.Random(seed)
    sources = [[draw.randrange(4, VOCAB) for _ in range(draw.randint(1, 6))] for _ in range(size)]
    targets = [row[::-1] if reverse else row for row in sources]
    return batch_of(sources, targets), targets


def learn(reverse: bool, updates: int) -> Seq2Seq:
    torch.manual_seed(0)
    model = Seq2Seq(
        VOCAB,
        VOCAB,
        ModelConfig(
            attention="additive",
            embedding_dim=24,
            encoder_hidden=24,
            encoder_layers=1,
            decoder_hidden=32,
            attention_hidden=24,
            dropout=0.0,
            word_dropout=0.0,
        ),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for update in range(updates):
        batch, _ = toy_batch(reverse, 64, seed=update)
        loss = batch_loss(model, batch, 0.0)
        optimizer.zero_grad()
        torch.autograd.backward(loss.smoothed / loss.tokens)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True], ids=["copy", "reverse"])
def test_a_small_model_learns_to_copy_and_to_reverse(reverse: bool) -> None:
    model = learn(reverse, updates=500)
    batch, targets = toy_batch(reverse, 100, seed=10**6)
    hypotheses = beam_search(
        model, batch.src, batch.src_mask, beam=3, alpha=0.6,
        max_lengths=torch.full((100,), 12),
    )  # fmt: skip
    correct = sum(best[0].ids == target for best, target in zip(hypotheses, targets, strict=True))
    assert correct >= 95


def test_a_small_model_overfits_one_batch() -> None:
    torch.manual_seed(0)
    model = Seq2Seq(
        VOCAB,
        VOCAB,
        ModelConfig(
            attention="additive",
            embedding_dim=16,
            encoder_hidden=16,
            encoder_layers=1,
            decoder_hidden=24,
            attention_hidden=16,
            dropout=0.0,
            word_dropout=0.0,
        ),
    )
    batch, _ = toy_batch(reverse=True, size=6, seed=1)
    assert (batch.trg_out == EOS).sum() == 6
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = batch_loss(model, batch, 0.0)
        optimizer.zero_grad()
        torch.autograd.backward(loss.smoothed / loss.tokens)
        optimizer.step()
    assert float(loss.plain) / loss.tokens < 0.05
