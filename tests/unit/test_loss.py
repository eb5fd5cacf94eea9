"""The loss equals PyTorch's own, in chunks, in padded batches and over micro-batches."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.data.batches import make_batch
from nmt.model.fast.kernels import REFERENCE
from nmt.symbols import EOS, PAD
from nmt.train import loss as loss_module
from nmt.train.loss import alignment_loss, batch_loss, output_loss
from tests.helpers.small import VOCAB, align_to_last, gradients, random_corpus, small_model


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_the_cross_entropy_of_pytorch(smoothing: float) -> None:
    batch = make_batch(random_corpus(6), np.arange(6))
    network = small_model().eval()
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


def test_gradients_equal_those_of_pytorch_whatever_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(1)
    shapes = ((37, 12), (VOCAB, 12), (VOCAB,))  # features, weight, bias
    ids = torch.randint(1, VOCAB, (37,))
    ids[5] = PAD  # no target
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    logits = torch.nn.functional.linear(*inputs)
    expected = torch.nn.functional.cross_entropy(
        logits, ids, reduction="sum", label_smoothing=0.1, ignore_index=PAD
    )
    gradients = torch.autograd.grad(3 * expected, inputs)
    # One row at a time, five rows, all rows.
    for numbers, cached in ((1, 1), (5 * VOCAB, 2 * VOCAB), (1 << 20, 1 << 20)):
        monkeypatch.setitem(loss_module._LOGITS_PER_CHUNK, "cpu", numbers)
        monkeypatch.setitem(loss_module._LOGITS_IN_CACHE, "cpu", cached)
        smoothed, plain = output_loss(*inputs, ids, 0.1)
        torch.testing.assert_close(smoothed, expected)
        assert not plain.requires_grad
        torch.testing.assert_close(torch.autograd.grad(3 * smoothed, inputs), gradients)


def test_bfloat16_loss_stays_near_and_is_float32() -> None:
    batch, network = make_batch(random_corpus(20), np.arange(20)), small_model(size=32)
    exact = batch_loss(network, batch, 0.1)
    torch.autograd.backward(exact.smoothed)
    expected = gradients(network)
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = batch_loss(network, batch, 0.1)
    torch.autograd.backward(rounded.smoothed)
    assert rounded.smoothed.dtype == torch.float32
    assert float(rounded.plain) == pytest.approx(float(exact.plain), rel=1e-2)
    for name, gradient in gradients(network).items():
        assert gradient.dtype == torch.float32
        error = (gradient - expected[name]).norm() / expected[name].norm()
        # Energies are invariant to a bias that all keys share, so its gradient is small.
        limit = 0.3 if name == "decoder.attention.project.bias" else 0.02
        assert 0 < float(error) < limit, name


def test_alignment_loss_is_a_cross_entropy_with_the_alignment() -> None:
    attention = torch.tensor([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]]])
    alignment = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]])
    expected = -math.log(0.5) - 0.5 * math.log(1.0)  # the last row has no link
    assert float(alignment_loss(attention, alignment)) == pytest.approx(expected, abs=1e-5)


def test_attention_converges_to_the_alignment() -> None:
    network, batch = small_model(size=32), make_batch(align_to_last(random_corpus(8)), np.arange(8))
    assert batch.alignment is not None
    assert bool((batch.alignment[batch.trg_out == EOS] == 0).all())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    taught = []
    for _ in range(60):
        loss = batch_loss(network, batch, 0.0, guided_alignment=1.0)
        torch.autograd.backward(loss.smoothed / loss.tokens)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            _, attention = network(batch.src, batch.src_mask, batch.trg_in)
        taught.append(float(alignment_loss(attention, batch.alignment)) / loss.tokens)
    assert taught[-1] < 0.1 * taught[0]
    assert loss.tokens == batch.trg_tokens
    unguided = batch_loss(network, batch, 0.0)
    assert float(loss.plain) == pytest.approx(float(unguided.plain), rel=0.1)


def test_k_micro_batches_equal_one_batch() -> None:
    packed, network = random_corpus(12), small_model().double()
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
        batch = make_batch(random_corpus(40, seed), np.arange(40))
        loss = batch_loss(small_model(size=32), batch, 0.1)
        losses.append(float(loss.plain) / loss.tokens)
    assert np.mean(losses) == pytest.approx(math.log(VOCAB), rel=0.05)


def test_one_batch_can_be_learned_by_heart() -> None:
    network, batch = small_model(size=32), make_batch(random_corpus(8), np.arange(8))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(150):
        loss = batch_loss(network, batch, 0.0)
        torch.autograd.backward(loss.smoothed / loss.tokens)
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.plain) / loss.tokens < 0.02


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_output_layer_of_a_gpu_equals_the_other(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype
) -> None:
    batch = make_batch(random_corpus(6), np.arange(6))
    seen = []
    for kernels in (None, REFERENCE):
        monkeypatch.setattr(loss_module, "_kernels", lambda _, kernels=kernels: kernels)
        monkeypatch.setitem(loss_module._LOGITS_PER_CHUNK, "cpu", 7 * VOCAB)
        network = small_model()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = batch_loss(network, batch, 0.1)
        torch.autograd.backward(loss.smoothed)
        values = {"smoothed": loss.smoothed.detach(), "plain": loss.plain, **gradients(network)}
        seen.append(values)
    close = (
        {"rtol": 1e-5, "atol": 1e-6} if precision == torch.float32 else {"rtol": 0.03, "atol": 0.03}
    )
    torch.testing.assert_close(seen[0], seen[1], **close)
