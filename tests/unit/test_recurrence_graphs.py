"""The recorded loop, with running again in place of recording: padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt.model.kernels import PLAIN
from nmt.model.recurrence_cuda import Inputs, recurrence
from nmt.model.recurrence_graphs import Graphs


def make(batch: int, src_len: int, steps: int, *, attention: bool = True) -> list[Tensor | None]:
    """Leaves in the order of `Inputs`; weights are the same whatever the sizes."""
    torch.manual_seed(3)
    weights = (torch.randn(12, 3), torch.randn(12), torch.randn(9, 4), torch.randn(3))
    torch.manual_seed(batch + src_len + steps)
    mask = torch.arange(src_len) < torch.randint(1, src_len + 1, (batch, 1))
    tensors: list[Tensor | None] = [torch.randn(batch, steps, 9), torch.randn(batch, 3), *weights]
    tensors += [torch.randn(batch, src_len, 3), torch.randn(batch, src_len, 4), mask]
    if not attention:
        tensors[2:] = [weights[0][:9], weights[1][:9], *(None,) * 5]
    return tensors


def outcome(
    function: object, tensors: list[Tensor | None], weights: list[Tensor | None]
) -> list[Tensor]:
    """Outputs, and gradients of everything that has one."""
    leaves = [
        tensor if tensor is None or tensor.dtype == torch.bool else tensor.detach().clone()
        for tensor in tensors
    ]
    leaves[2:6] = weights  # weights stay where they are
    for leaf in leaves:
        if leaf is not None and leaf.dtype != torch.bool:
            leaf.requires_grad_().grad = None
    outputs = [out for out in function(*leaves) if out.numel()]  # type: ignore[operator]
    torch.manual_seed(9)
    torch.autograd.backward(outputs, [torch.randn_like(out) for out in outputs])
    grads = [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]
    return [out.detach() for out in outputs] + [grad.clone() for grad in grads]


@pytest.mark.parametrize("attention", [True, False])
def test_any_batch_of_a_bucket_equals_the_loop(attention: bool) -> None:
    graphs = Graphs(PLAIN, multiples=(4, 4, 4))
    weights = make(2, 3, 2, attention=attention)[2:6]
    sizes = [(3, 5, 2), (4, 8, 4), (1, 6, 1), (5, 2, 3)]
    for size in sizes:
        tensors = make(*size, attention=attention)
        replayed = outcome(graphs.recurrence, tensors, weights)
        plain = outcome(lambda *t: recurrence(*t, kernels=PLAIN), tensors, weights)
        assert len(replayed) == len(plain) == (11 if attention else 5)
        for one, two in zip(replayed, plain, strict=True):
            torch.testing.assert_close(one, two)
    assert len(graphs.buckets) == 2


def test_a_batch_that_is_no_number_does_not_spoil_the_next() -> None:
    graphs = Graphs(PLAIN, multiples=(4, 4, 4))
    weights = make(2, 3, 2)[2:6]
    spoiled = make(4, 4, 4)
    assert spoiled[0] is not None
    spoiled[0][:] = torch.nan
    outcome(graphs.recurrence, spoiled, weights)
    for result in outcome(graphs.recurrence, make(2, 3, 2), weights):
        assert result.isfinite().all()


def test_the_least_recently_used_bucket_goes() -> None:
    graphs = Graphs(PLAIN, most=2, multiples=(1, 1, 1))
    tensors = {size: Inputs(*make(size, 2, 2)) for size in (1, 2, 3)}  # type: ignore[arg-type]
    first = graphs.bucket(tensors[1])
    second = graphs.bucket(tensors[2])
    # Weights that lie elsewhere belong to another bucket, so the same tensors come again.
    assert graphs.bucket(tensors[1]) is first
    graphs.bucket(tensors[3])
    assert graphs.bucket(tensors[1]) is first
    assert graphs.bucket(tensors[2]) is not second


def test_backward_after_another_batch_is_refused() -> None:
    graphs = Graphs(PLAIN, multiples=(4, 4, 4))
    tensors = [
        t if t is None or t.dtype == torch.bool else t.requires_grad_() for t in make(2, 3, 2)
    ]
    states, *_ = graphs.recurrence(*tensors)
    graphs.recurrence(*tensors)
    with pytest.raises(AssertionError, match="another batch"):
        torch.autograd.backward(states.sum())


def test_autocast_rounds_nothing_inside() -> None:
    graphs = Graphs(PLAIN, multiples=(4, 4, 4))
    tensors, weights = make(2, 3, 2), make(2, 3, 2)[2:6]
    plain = outcome(graphs.recurrence, tensors, weights)
    with torch.autocast("cpu", torch.bfloat16):
        again = outcome(Graphs(PLAIN, multiples=(4, 4, 4)).recurrence, tensors, weights)
    for one, two in zip(plain, again, strict=True):
        assert torch.equal(one, two)
