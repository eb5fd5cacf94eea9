"""Equalities 6 and 8 of the house, and the loss against PyTorch's own."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.batches import make_batch
from nmt.corpus import PackedSet, Side
from nmt.model import Seq2Seq
from nmt.symbols import PAD
from nmt.train.loss import batch_loss

VOCAB = 50


def corpus(sentences: int, seed: int = 1) -> PackedSet:
    random = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        ends = np.cumsum(random.integers(1, 9, sentences))
        sides.append(Side(random.integers(4, VOCAB, ends[-1]), ends))
    return PackedSet(*sides)


def model(dropout: float = 0.0, size: int = 16) -> Seq2Seq:
    torch.manual_seed(1)
    return Seq2Seq(
        src_vocab=VOCAB, trg_vocab=VOCAB, attention="additive", embedding=size, encoder=size,
        encoder_layers=1, decoder=size, attention_size=size, dropout=dropout, word_dropout=0.0,
    )  # fmt: skip


def gradients(network: Seq2Seq) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_cross_entropy_of_pytorch(smoothing: float) -> None:
    batch = make_batch(corpus(6), np.arange(6))
    network = model().eval()
    features, _ = network(batch.src, batch.src_mask, batch.trg_in)
    logits = network.decoder.logits(features)
    loss = batch_loss(network, batch, smoothing)

    def reference(label_smoothing: float) -> Tensor:
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.trg_out.flatten(), ignore_index=PAD, reduction="sum",
            label_smoothing=label_smoothing,
        )  # fmt: skip

    torch.testing.assert_close(loss.smoothed, reference(smoothing))
    torch.testing.assert_close(loss.plain, reference(0.0))
    assert loss.tokens == int((batch.trg_out != PAD).sum())


def test_k_micro_batches_equal_one_batch() -> None:
    packed, network = corpus(12), model().double()
    whole = batch_loss(network, make_batch(packed, np.arange(12)), 0.1)
    torch.autograd.backward(whole.smoothed / whole.tokens)
    expected = gradients(network)
    network.zero_grad()
    tokens = 0
    for part in np.array_split(np.arange(12), 4):
        loss = batch_loss(network, make_batch(packed, part), 0.1)
        torch.autograd.backward(loss.smoothed / whole.tokens)
        tokens += loss.tokens
    assert tokens == whole.tokens
    # The loss is computed in float32 whatever the network's own precision.
    torch.testing.assert_close(gradients(network), expected, rtol=1e-5, atol=1e-8)


def test_first_loss_is_the_logarithm_of_the_vocabulary() -> None:
    losses = []
    for seed in range(5):
        loss = batch_loss(model(size=32), make_batch(corpus(40, seed), np.arange(40)), 0.1)
        losses.append(float(loss.plain) / loss.tokens)
    assert np.mean(losses) == pytest.approx(math.log(VOCAB), rel=0.05)


def test_one_batch_can_be_learned_by_heart() -> None:
    network, batch = model(size=32), make_batch(corpus(8), np.arange(8))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(150):
        loss = batch_loss(network, batch, 0.0)
        torch.autograd.backward(loss.smoothed / loss.tokens)
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.plain) / loss.tokens < 0.02
