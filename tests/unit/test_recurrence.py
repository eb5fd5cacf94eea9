"""Equality 5: the fast recurrence equals the step loop, forward and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt.model import Seq2Seq
from nmt.model.fast.recurrence import unroll, unroll_by_step
from tests.unit.test_model import KINDS, SOURCES, TARGETS, Kind, batch_of, build


def parts(model: Seq2Seq) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Inputs of the recurrence as leaves of their own."""
    batch = batch_of(SOURCES, TARGETS)
    memory, first = model.encode(batch.src, batch.src_mask)
    gates = model.decoder.from_words(model.decoder.embed(batch.trg_in))
    leaves = [
        t.detach().requires_grad_() for t in (gates, first, memory.encoder_states, memory.keys)
    ]
    return (*leaves, batch.src_mask)  # type: ignore[return-value]


def run(model: Seq2Seq, how: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    from nmt.model.decoder import Memory

    gates, first, encoder_states, keys, mask = inputs
    return how(model.decoder, gates, first, Memory(encoder_states, keys, mask))  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("attention", KINDS)
def test_outputs_and_all_gradients_agree(attention: Kind) -> None:
    model = build(attention).double()
    seen = []
    for how in (unroll, unroll_by_step):
        inputs = parts(model)
        model.zero_grad()
        states, contexts, looked = run(model, how, inputs)
        torch.manual_seed(5)
        loss = (states * torch.randn(states.shape, dtype=states.dtype)).sum()
        loss = loss + (contexts * torch.randn(contexts.shape, dtype=contexts.dtype)).sum()
        loss = loss + (looked * torch.randn(looked.shape, dtype=looked.dtype)).sum()
        torch.autograd.backward(loss)
        of_inputs = [torch.zeros_like(t) if t.grad is None else t.grad for t in inputs[:4]]
        of_weights = {
            name: p.grad.clone()
            for name, p in model.decoder.named_parameters()
            if p.grad is not None and name.startswith(("recurrent", "context", "attention.score"))
        }
        seen.append((states, contexts, looked, *of_inputs, *of_weights.values()))
        assert "recurrent.weight" in of_weights
        assert ("attention.score" in of_weights) == (attention != "none")
    for fast, plain in zip(*seen, strict=True):
        torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("attention", ["additive", "asks"])
def test_gradcheck(attention: Kind) -> None:
    model = build(attention).double()
    inputs = parts(model)
    decoder = model.decoder
    weights = (decoder.recurrent.weight, decoder.context_gates.weight, decoder.attention.score)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return run(model, unroll, (*tensors[:4], inputs[4]))

    assert torch.autograd.gradcheck(function, (*inputs[:4], *weights))


def test_single_precision_stays_close() -> None:
    model = build("additive")
    inputs = parts(model)
    for fast, plain in zip(
        run(model, unroll, inputs), run(model, unroll_by_step, inputs), strict=True
    ):
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", KINDS)
def test_bfloat16_products_stay_near_and_leave_float32(attention: Kind) -> None:
    model = build(attention)
    seen = []
    for rounds in (False, True):
        inputs = parts(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            states, contexts, looked = run(model, unroll, inputs)
        assert {states.dtype, contexts.dtype, looked.dtype} == {torch.float32}
        torch.autograd.backward(states.sum() + contexts.sum())
        seen.append((states, contexts, looked, inputs[0].grad, inputs[1].grad))
    assert not torch.equal(seen[0][0], seen[1][0])  # it did round
    for exact, rounded in zip(*seen, strict=True):
        assert exact is not None
        assert rounded is not None
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_energies_far_out_stay_numbers() -> None:
    model = build("additive")
    inputs = parts(model)
    with torch.no_grad():
        inputs[3].mul_(1e4)  # keys: tanh is flat there, its exponentials would be infinite
    states, contexts, looked = run(model, unroll, inputs)
    torch.autograd.backward(states.sum() + contexts.sum() + looked.square().sum())
    for fast, plain in zip(
        (states, contexts, looked), run(model, unroll_by_step, inputs), strict=True
    ):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert all(bool(t.grad.isfinite().all()) for t in inputs[:4] if t.grad is not None)
