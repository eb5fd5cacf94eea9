"""The bidirectional GRU of the encoder on a CPU: one loop over time for both directions.

PyTorch's own GRU there is differentiated operation by operation, each direction for itself.
Here, as in `recurrence`, forward keeps the gates, backward runs once over time for the
gradient of the state, and a weight gradient is one product over all steps. On a GPU cuDNN
has it all in one call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nmt.model.weight import Weight, autocast_precision


def both_ways(gru: nn.GRU, layer: int, inputs: Tensor, lengths: Tensor) -> Tensor:
    """What one layer of `gru` makes of a padded batch, on the CPU.

    Args:
        gru: bidirectional, `batch_first`; owner of the weights.
        layer: from 0.
        inputs: `[batch, length, features]`, padding behind each sentence.
        lengths: real tokens of each sentence, `[batch]`.

    Returns:
        [forward state; backward state] of each token, `[batch, length, 2*hidden]`; on padding
        whatever it may be.
    """
    batch, length, _ = inputs.shape
    orders = _reading_orders(lengths, length)
    weights, biases, given = [], [], []
    for way, order in zip(("", "_reverse"), orders, strict=True):
        of_input, recurrent, bias, recurrent_bias = (
            getattr(gru, f"{name}_l{layer}{way}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates = nn.functional.linear(inputs, of_input, bias)
        given.append(_reorder(gates.to(bias.dtype).flatten(0, 1), order, _inverse(order)))
        weights.append(recurrent)
        biases.append(recurrent_bias)
    states = _states(torch.stack(given).view(2, length, batch, -1), weights, biases)
    # A state is put back where the token stands that was read last.
    back = [
        _reorder(states[way].flatten(0, 1), _inverse(order), order)
        for way, order in enumerate(orders)
    ]
    return torch.cat(back, dim=1).view(batch, length, -1)


def _reading_orders(lengths: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The place, in a batch end to end, of what each direction reads at each step.

    Returns:
        two of `[length*batch]`, time first: first to last token, and last to first; padding
        is read where it stands, after the sentence in either direction.
    """
    steps = torch.arange(length).unsqueeze(1)  # [length, 1]
    begins = torch.arange(len(lengths)) * length
    from_last = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return (begins + steps).flatten(), (begins + from_last).flatten()


def _inverse(order: Tensor) -> Tensor:
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return inverse


def _reorder(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    reordered: Tensor = _Reorder.apply(rows, order, inverse)  # type: ignore[no-untyped-call]
    return reordered


class _Reorder(torch.autograd.Function):
    """Rows in another order: the gradient is put back by gathering too, not by adding up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_rows: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return d_rows.index_select(0, inverse), None, None


def _states(given: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """`_Loop` in the precision that autocast asks for, if it is on."""
    precision = autocast_precision("cpu", given.dtype)
    with torch.autocast("cpu", enabled=False):
        states: Tensor = _Loop.apply(given, *weights, *biases, precision)  # type: ignore[no-untyped-call]
    return states


def gru_step(given: Tensor, own: Tensor, before: Tensor, gates: Tensor, after: Tensor) -> None:
    """One step of a GRU as cuDNN has it: the reset gate scales U s_{i-1}, not s_{i-1}.

    Args:
        given: W x and its bias for reset, update, candidate, `[..., 3*hidden]`.
        own: U s_{i-1} and its bias for the same, the same shape.
        before: s_{i-1}, `[..., hidden]`.
        gates: filled with the gates and the candidate, `[..., 3*hidden]`.
        after: filled with s_i, `[..., hidden]`.
    """
    hidden = before.shape[-1]
    both, candidate = torch.split(gates, [2 * hidden, hidden], dim=-1)
    torch.add(given[..., : 2 * hidden], own[..., : 2 * hidden], out=both).sigmoid_()
    torch.addcmul(
        given[..., 2 * hidden :], both[..., :hidden], own[..., 2 * hidden :], out=candidate
    )
    _tanh_(candidate)
    torch.lerp(candidate, before, both[..., hidden:], out=after)


def _tanh_(x: Tensor) -> Tensor:
    """Tanh in place, as 2 sigmoid(2x) - 1: PyTorch computes that much faster on most CPUs."""
    return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)


def gru_step_backward(
    d_state: Tensor,
    before: Tensor,
    gates: Tensor,
    own_candidate: Tensor,
    d_given: Tensor,
    d_own: Tensor,
) -> None:
    """Gradients of what a GRU step was given and of U s_{i-1}, from that of its state s_i.

    Args:
        d_state: `[..., hidden]`.
        before: s_{i-1}, the same shape.
        gates: reset, update, candidate, `[..., 3*hidden]`.
        own_candidate: U s_{i-1} of the candidate, `[..., hidden]`.
        d_given: filled, `[..., 3*hidden]`.
        d_own: filled, the same shape; differs in the candidate, which the reset gate scales.
    """
    hidden = d_state.shape[-1]
    reset, update, candidate = torch.split(gates, hidden, dim=-1)
    both, d_candidate = torch.split(d_given, [2 * hidden, hidden], dim=-1)
    kept = torch.addcmul(d_state, d_state, update, value=-1.0)
    torch.ops.aten.tanh_backward.grad_input(kept, candidate, grad_input=d_candidate)
    d_open = torch.cat([d_candidate * own_candidate, (before - candidate).mul_(d_state)], dim=-1)
    torch.ops.aten.sigmoid_backward.grad_input(d_open, gates[..., : 2 * hidden], grad_input=both)
    d_own[..., : 2 * hidden] = both
    torch.mul(d_candidate, reset, out=d_own[..., 2 * hidden :])


class _Loop(torch.autograd.Function):
    """GRU states from zero on, for two directions side by side.

    Args:
        given: W x and its bias for the gates reset, update, candidate, in the order of
            reading, `[2, length, batch, 3*hidden]`.
        first, second: recurrent weights of the directions, `[3*hidden, hidden]`.
        first_bias, second_bias: of the same, `[3*hidden]`.
        precision: of products with weights.

    Returns:
        `[2, length, batch, hidden]`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        given: Tensor,
        first: Tensor,
        second: Tensor,
        first_bias: Tensor,
        second_bias: Tensor,
        precision: torch.dtype,
    ) -> Tensor:
        ways, length, batch, three = given.shape
        hidden = three // 3
        weights = [Weight(first, precision), Weight(second, precision)]
        biases = [first_bias, second_bias]
        states = given.new_zeros(ways, length + 1, batch, hidden)
        gates = given.new_empty(length, ways, batch, three)  # reset, update, candidate
        own_candidate = given.new_empty(length, ways, batch, hidden)
        own = given.new_empty(ways, batch, three)
        for step in range(length):
            for way in range(ways):
                weights[way].forward(states[way, step], biases[way], out=own[way])
            gru_step(given[:, step], own, states[:, step], gates[step], states[:, step + 1])
            own_candidate[step] = own[..., 2 * hidden :]
        ctx.weights = weights
        ctx.save_for_backward(states, gates, own_candidate)
        return states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor | None, ...]:
        states, gates, own_candidate = ctx.saved_tensors
        length, ways, batch, three = gates.shape
        hidden = three // 3
        d_given = gates.new_empty(ways, length, batch, three)
        d_own = torch.empty_like(d_given)
        d_state = torch.zeros_like(states[:, 0])
        for step in range(length - 1, -1, -1):
            d_state += d_states[:, step]
            gru_step_backward(
                d_state, states[:, step], gates[step], own_candidate[step],
                d_given[:, step], d_own[:, step],
            )  # fmt: skip
            d_state *= gates[step, ..., hidden : 2 * hidden]
            for way in range(ways):
                ctx.weights[way].backward(d_own[way, step], d_state[way], out=d_state[way])
        d_weights = [
            weight.gradient(d_own[way], states[way, :-1]) for way, weight in enumerate(ctx.weights)
        ]
        return d_given, *d_weights, *d_own.sum(dim=(1, 2)), None
