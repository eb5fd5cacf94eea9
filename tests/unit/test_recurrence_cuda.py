"""The GPU's time loop, run with its plain kernels: equal to the CPU's and to the step loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt.model import Seq2Seq
from nmt.model.attention import AdditiveAttention
from nmt.model.fast import recurrence_cuda
from nmt.model.fast.recurrence import unroll, unroll_by_step
from nmt.model.fast.recurrence_cuda import recurrence
from tests.unit.test_model import KINDS, Kind, build
from tests.unit.test_recurrence import parts, run


def loop(model: Seq2Seq, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As `unroll`, by the loop under test."""
    gates, first, encoder_states, keys, mask = inputs
    decoder = model.decoder
    weights = (decoder.recurrent.weight, decoder.recurrent.bias)
    if isinstance(decoder.attention, AdditiveAttention):
        return recurrence(
            gates, first, *weights, decoder.context_gates.weight, decoder.attention.score,
            keys, encoder_states, mask,
        )  # fmt: skip
    context = keys.expand(-1, gates.shape[1], -1)
    states, none, _ = recurrence(
        gates + decoder.context_gates(context), first, *weights, *(None,) * 5
    )
    assert none.numel() == 0
    even = mask / mask.sum(dim=1, keepdim=True)
    return states, context, even.unsqueeze(1).expand(-1, gates.shape[1], -1)


@pytest.mark.parametrize("attention", KINDS)
def test_outputs_and_all_gradients_equal_the_step_loop(attention: Kind) -> None:
    model = build(attention).double()
    seen = []
    for fast in (True, False):
        inputs = parts(model)
        model.zero_grad()
        outputs = loop(model, inputs) if fast else run(model, unroll_by_step, inputs)
        torch.manual_seed(5)
        loss = sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs[:2])
        torch.autograd.backward(loss)  # type: ignore[arg-type]
        of_inputs = [torch.zeros_like(t) if t.grad is None else t.grad for t in inputs[:4]]
        of_weights = [
            p.grad.clone() for name, p in model.decoder.named_parameters()
            if p.grad is not None and name.startswith(("recurrent", "context", "attention.score"))
        ]  # fmt: skip
        assert len(of_weights) == (3 if attention == "none" else 4)
        seen.append((*outputs[:2], outputs[2].double(), *of_inputs, *of_weights))
    for fast_result, plain in zip(*seen, strict=True):
        torch.testing.assert_close(fast_result, plain)


def test_gradcheck() -> None:
    model = build("additive").double()
    inputs = parts(model)
    decoder = model.decoder
    weights = (decoder.recurrent.weight, decoder.context_gates.weight, decoder.attention.score)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return loop(model, (*tensors[:4], inputs[4]))[:2]

    assert torch.autograd.gradcheck(function, (*inputs[:4], *weights))


def test_bfloat16_stays_close_to_single_precision() -> None:
    model = build("additive")
    inputs = parts(model)
    exact = loop(model, inputs)
    rounded = loop(model, tuple(t if t.dtype == torch.bool else t.bfloat16() for t in inputs))
    assert rounded[0].dtype == rounded[1].dtype == torch.bfloat16
    assert rounded[2].dtype == torch.float32  # rows of the attention sum to 1
    torch.testing.assert_close(rounded[2].sum(dim=2), torch.ones(rounded[2].shape[:2]))
    for rough, fine in zip(rounded, exact, strict=True):
        torch.testing.assert_close(rough.float(), fine, rtol=0.02, atol=0.02)


def test_under_autocast_types_are_as_given_and_weights_get_float32_gradients() -> None:
    model = build("additive")
    inputs = parts(model)
    low = tuple(
        t if t.dtype == torch.bool else t.detach().bfloat16().requires_grad_() for t in inputs
    )
    with torch.autocast("cpu", torch.bfloat16):
        states, contexts, _ = loop(model, low)
        torch.autograd.backward(states.float().sum() + contexts.float().sum())
    assert all(
        tensor.grad is not None and tensor.grad.dtype == torch.bfloat16 for tensor in low[:4]
    )
    assert model.decoder.recurrent.weight.grad is not None
    assert model.decoder.recurrent.weight.grad.dtype == torch.float32


def test_backward_can_be_run_twice() -> None:
    model = build("additive")
    inputs = parts(model)
    states, contexts, _ = loop(model, inputs)
    loss = states.sum() + contexts.sum()
    first = torch.autograd.grad(loss, inputs[:4], retain_graph=True)
    for one, two in zip(first, torch.autograd.grad(loss, inputs[:4]), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("attention", KINDS)
def test_the_network_takes_it_where_it_is_for(
    attention: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(attention)
    inputs = parts(model)
    usual = run(model, unroll, inputs)
    calls = []

    def counted(*tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        calls.append(len(tensors))
        return recurrence(*tensors)

    monkeypatch.setattr(recurrence_cuda, "is_for", lambda tensor: tensor is not None)
    monkeypatch.setattr(recurrence_cuda, "recurrence", counted)
    for here, there in zip(run(model, unroll, inputs), usual, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)
    assert calls == [9]
