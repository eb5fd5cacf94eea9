"""The recurrence equals a loop of `Decoder.step`, with both PyTorch kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt.model import Seq2Seq
from nmt.model.decoder import Memory
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import REFERENCE, CpuKernels, Kernels
from nmt.model.fast.recurrence import unroll, unroll_by_step
from tests.helpers.networks import KINDS, SOURCES, TARGETS, Kind, batch_of, network

KERNELS = {"cpu": CpuKernels, "reference": lambda: REFERENCE}


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select the kernels of `unroll`."""
    create = KERNELS[request.param]

    def select(_tensor: Tensor, _src_len: int) -> Kernels:
        return create()

    monkeypatch.setattr(recurrence, "select_kernels", select)
    return str(request.param)


def leaves(model: Seq2Seq) -> tuple[Tensor, ...]:
    """Return input gates, initial state, encoder states and keys as leaves, and the mask."""
    batch = batch_of(SOURCES, TARGETS)
    memory, state = model.encode(batch.src, batch.src_mask)
    gates = model.decoder.input_gates(model.decoder.embed(batch.trg_in))
    tensors = (gates, state, memory.encoder_states, memory.keys)
    return (*(t.detach().requires_grad_() for t in tensors), batch.src_mask)


def run(model: Seq2Seq, function: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    gates, state, encoder_states, keys, mask = inputs
    memory = Memory(encoder_states, keys, mask)
    return function(model.decoder, gates, state, memory)  # type: ignore[operator, no-any-return]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("attention", KINDS)
def test_outputs_and_all_gradients_equal_the_step_loop(attention: Kind) -> None:
    model = network(attention).double()
    results = []
    for function in (unroll, unroll_by_step):
        inputs = leaves(model)
        model.zero_grad()
        outputs = run(model, function, inputs)
        torch.manual_seed(5)
        weights = [torch.randn(output.shape, dtype=output.dtype) for output in outputs]
        torch.autograd.backward(
            sum((output * w).sum() for output, w in zip(outputs, weights, strict=True))  # type: ignore[arg-type]
        )
        input_grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in inputs[:4]]
        weight_grads = {
            name: p.grad.clone()
            for name, p in model.decoder.named_parameters()
            if p.grad is not None and name.startswith(("recurrent", "context", "attention.score"))
        }
        assert len(weight_grads) == (3 if attention == "none" else 4)
        results.append((*outputs, *input_grads, *weight_grads.values()))
    for fast, reference in zip(*results, strict=True):
        torch.testing.assert_close(fast, reference)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("attention", ["additive", "state+word"])
def test_gradcheck(attention: Kind) -> None:
    model = network(attention).double()
    inputs = leaves(model)
    decoder = model.decoder
    weights = (decoder.recurrent.weight, decoder.context_gates.weight, decoder.attention.score)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        return run(model, unroll, (*tensors[:4], inputs[4]))

    assert torch.autograd.gradcheck(function, (*inputs[:4], *weights))


@pytest.mark.usefixtures("kernels")
def test_single_precision_is_close() -> None:
    model = network()
    inputs = leaves(model)
    for fast, reference in zip(
        run(model, unroll, inputs), run(model, unroll_by_step, inputs), strict=True
    ):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", KINDS)
def test_cpu_bfloat16_rounds_products_only(attention: Kind) -> None:
    model = network(attention)
    results = []
    for autocast in (False, True):
        inputs = leaves(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            outputs = run(model, unroll, inputs)
        assert {output.dtype for output in outputs} == {torch.float32}
        torch.autograd.backward(outputs[0].sum() + outputs[1].sum())
        results.append((*outputs, inputs[0].grad, inputs[1].grad))
    assert not torch.equal(results[0][0], results[1][0])
    for exact, rounded in zip(*results, strict=True):
        torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_saturated_energies_stay_finite() -> None:
    model = network()
    inputs = leaves(model)
    with torch.no_grad():
        inputs[3].mul_(1e4)  # keys whose exponentials would overflow
    outputs = run(model, unroll, inputs)
    torch.autograd.backward(outputs[0].sum() + outputs[1].sum() + outputs[2].square().sum())
    for fast, reference in zip(outputs, run(model, unroll_by_step, inputs), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-4, atol=1e-5)
    assert all(bool(t.grad.isfinite().all()) for t in inputs[:4] if t.grad is not None)


@pytest.mark.usefixtures("kernels")
def test_backward_can_run_twice() -> None:
    model = network()
    inputs = leaves(model)
    states, contexts, _ = run(model, unroll, inputs)
    loss = states.sum() + contexts.sum()
    first = torch.autograd.grad(loss, inputs[:4], retain_graph=True)
    second = torch.autograd.grad(loss, inputs[:4])
    for once, twice in zip(first, second, strict=True):
        assert torch.equal(once, twice)


def use_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrence, "select_kernels", lambda *_: REFERENCE)


def test_bfloat16_inputs_are_close_to_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reference(monkeypatch)
    model = network()
    inputs = leaves(model)
    exact = run(model, unroll, inputs)
    low = tuple(t if t.dtype == torch.bool else t.bfloat16() for t in inputs)
    rounded = run(model, unroll, low)
    assert rounded[0].dtype == rounded[1].dtype == torch.bfloat16
    assert rounded[2].dtype == torch.float32
    torch.testing.assert_close(rounded[2].sum(dim=2), torch.ones(rounded[2].shape[:2]))
    for low_result, exact_result in zip(rounded, exact, strict=True):
        torch.testing.assert_close(low_result.float(), exact_result, rtol=0.02, atol=0.02)


def test_gradients_have_the_types_of_their_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    use_reference(monkeypatch)
    model = network()
    inputs = tuple(
        t if t.dtype == torch.bool else t.detach().bfloat16().requires_grad_()
        for t in leaves(model)
    )
    with torch.autocast("cpu", torch.bfloat16):
        states, contexts, _ = run(model, unroll, inputs)
        torch.autograd.backward(states.float().sum() + contexts.float().sum())
    assert {t.grad.dtype for t in inputs[:4] if t.grad is not None} == {torch.bfloat16}
    assert all(t.grad is not None for t in inputs[:4])
    assert model.decoder.recurrent.weight.grad is not None
    assert model.decoder.recurrent.weight.grad.dtype == torch.float32
