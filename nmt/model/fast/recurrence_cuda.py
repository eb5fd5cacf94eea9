"""The teacher-forced time loop for a GPU: the same numbers as `recurrence`, other products.

A step is four launches forward (product with s_{i-1}, attention, product with c_i, gates)
and four backward. Products are in the type of `word_gates`, bfloat16 under autocast, added
up in float32 by cuBLAS; the state and its gradient are carried in float32, since errors of
a sum over many steps would grow. Nothing waits for the GPU, so that training can record
the launches of all steps and replay them (`nmt.train.cuda_graphs`). Without attention it is a
GRU, and the encoder's.

Tensors inside are time first, so that a step is contiguous; `kernels` has the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.model.fast.kernels import PLAIN, Kernels, OnTriton, available, exact_type, why_not_triton
from nmt.model.fast.weight import as_given


@dataclass(frozen=True)
class Inputs:
    """What the recurrence reads; the last five are None for a context that does not change.

    Attributes:
        word_gates: of trg_in, and of a context that does not change; behind them what the
            word adds to the query, if it does, `[batch, trg_len, 3*hidden (+ units)]`.
        first_state: s_0, `[batch, hidden]`.
        weight: recurrent weights and W_a, `[3*hidden + units, hidden]`.
        bias: of the same, `[3*hidden + units]`.
        context_weight: `[3*hidden, states]`.
        score: v_a, `[units]`.
        keys: U_a h_j, `[batch, src_len, units]`.
        encoder_states: h_j, `[batch, src_len, states]`.
        src_mask: True on real tokens, `[batch, src_len]`.
    """

    word_gates: Tensor
    first_state: Tensor
    weight: Tensor
    bias: Tensor
    context_weight: Tensor | None
    score: Tensor | None
    keys: Tensor | None
    encoder_states: Tensor | None
    src_mask: Tensor | None

    def cast(self) -> Inputs:
        """All that is multiplied in the type of `word_gates`, and contiguous."""
        kept = self.word_gates.dtype

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(kept).contiguous()

        return Inputs(
            self.word_gates if self.word_gates.stride(2) == 1 else self.word_gates.contiguous(),
            self.first_state, _must(of(self.weight)), _must(of(self.bias)),
            of(self.context_weight), None if self.score is None else self.score.contiguous(),
            of(self.keys), of(self.encoder_states),
            None if self.src_mask is None else self.src_mask.contiguous(),
        )  # fmt: skip


class Kept(NamedTuple):
    """What forward keeps for backward, time first.

    Attributes:
        states: s_0..s_T, `[trg_len + 1, batch, hidden]`.
        recurrent: reset gate, update gate, candidate's U s_{i-1}, and query,
            `[trg_len, batch, 3*hidden + units]`.
        candidates: `[trg_len, batch, hidden]`.
        attention: `[trg_len, batch, src_len]`, float32.
        contexts: `[trg_len, batch, states]`.
    """

    states: Tensor
    recurrent: Tensor
    candidates: Tensor
    attention: Tensor
    contexts: Tensor


@torch.no_grad()
def run_forward(inputs: Inputs, kernels: Kernels) -> Kept:
    """The loop; `inputs` as `Inputs.cast` makes them."""
    (batch, hidden), steps = inputs.first_state.shape, inputs.word_gates.shape[1]
    three, looks = 3 * hidden, inputs.keys is not None
    of_gates, of_query = inputs.word_gates[:, :, :three], inputs.word_gates[:, :, three:]
    new = inputs.word_gates.new_empty
    exact = inputs.first_state.to(exact_type(inputs.word_gates.dtype), copy=True).contiguous()
    states = new(steps + 1, batch, hidden)
    states[0] = exact
    recurrent = new(steps, batch, inputs.weight.shape[0])
    candidates = new(steps, batch, hidden)
    attention = exact.new_empty(steps, batch, inputs.keys.shape[1] if looks else 0)  # type: ignore[union-attr]
    contexts = new(steps, batch, inputs.encoder_states.shape[2] if looks else 0)  # type: ignore[union-attr]
    from_context = new(batch, three) if looks else None
    weight = inputs.weight.t()
    asks = of_query.shape[2] > 0
    if asks:  # all words at once, beneath the products: no launch more a step
        recurrent.copy_(inputs.bias.expand_as(recurrent))
        recurrent[:, :, three:].add_(of_query.transpose(0, 1))
    for step in range(steps):
        below = recurrent[step] if asks else inputs.bias
        torch.addmm(below, states[step], weight, out=recurrent[step])
        if from_context is not None:
            kernels.look(
                recurrent[step, :, three:], _must(inputs.keys), _must(inputs.encoder_states),
                _must(inputs.score), _must(inputs.src_mask), attention[step], contexts[step],
            )  # fmt: skip
            torch.mm(contexts[step], _must(inputs.context_weight).t(), out=from_context)
        kernels.gates(
            of_gates[:, step], from_context, recurrent[step], exact,
            candidates[step], states[step + 1],
        )  # fmt: skip
    return Kept(states, recurrent, candidates, attention, contexts)


@torch.no_grad()
def run_backward(
    inputs: Inputs,
    kept: Kept,
    d_states: Tensor,
    d_contexts: Tensor | None,
    d_attention: Tensor | None,
    kernels: Kernels,
) -> tuple[Tensor | None, ...]:
    """Gradients of `Inputs`, in its order.

    Args:
        inputs: what `run_forward` was given.
        kept: what it returned.
        d_states: of s_1..s_T, `[batch, trg_len, hidden]`.
        d_contexts: of c_1..c_T, `[batch, trg_len, states]`; None for zeros.
        d_attention: of a_ij, `[batch, trg_len, src_len]`; None for zeros.
        kernels: those of forward.
    """
    steps, batch, hidden = kept.candidates.shape
    three, looks = 3 * hidden, inputs.keys is not None
    new = inputs.word_gates.new_empty
    if d_states.stride(2) != 1:
        d_states = d_states.contiguous()
    if d_attention is not None and d_attention.stride(2) != 1:
        d_attention = d_attention.contiguous()
    carried = torch.zeros_like(kept.states[0], dtype=exact_type(kept.states.dtype))
    product = torch.zeros_like(kept.states[0])
    d_given = new(steps, batch, three)
    d_recurrent = new(steps, batch, inputs.weight.shape[0])
    d_energies = torch.empty_like(kept.attention)
    d_context = torch.zeros_like(kept.contexts)
    if d_contexts is not None:
        d_context.copy_(d_contexts.transpose(0, 1))
    for step in range(steps - 1, -1, -1):
        kernels.gates_backward(
            d_states[:, step], carried, product, kept.recurrent[step], kept.candidates[step],
            kept.states[step], d_given[step], d_recurrent[step],
        )  # fmt: skip
        if looks:
            d_context[step].addmm_(d_given[step], _must(inputs.context_weight))
            kernels.look_backward(
                d_context[step], None if d_attention is None else d_attention[:, step],
                kept.attention[step], kept.recurrent[step, :, three:],
                _must(inputs.keys), _must(inputs.encoder_states), _must(inputs.score),
                _must(inputs.src_mask), d_energies[step], d_recurrent[step, :, three:],
            )  # fmt: skip
        torch.mm(d_recurrent[step], inputs.weight, out=product)
    flat = d_recurrent.flatten(0, 1)
    d_weight = flat.t() @ kept.states[:-1].flatten(0, 1)
    d_bias = flat.sum(dim=0)
    d_context_weight = d_score = d_keys = d_encoder_states = None
    if looks:
        d_context_weight = d_given.flatten(0, 1).t() @ kept.contexts.flatten(0, 1)
        d_keys, d_score = kernels.look_finish(
            kept.recurrent[:, :, three:], d_energies, _must(inputs.keys), _must(inputs.score),
            _must(inputs.src_mask),
        )  # fmt: skip
        d_encoder_states = kernels.spread(kept.attention, d_context)
    d_words = d_given
    if inputs.word_gates.shape[2] > three:  # what the word adds to a query has its gradient
        d_words = torch.cat([d_given, d_recurrent[:, :, three:]], dim=2)
    return (
        d_words.transpose(0, 1), carried + product, d_weight, d_bias, d_context_weight,
        d_score, d_keys, d_encoder_states, None,
    )  # fmt: skip


class _Recurrence(torch.autograd.Function):
    """The loop and its backward as one operation."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        word_gates: Tensor,
        first_state: Tensor,
        weight: Tensor,
        bias: Tensor,
        context_weight: Optional[Tensor],  # noqa: UP045 (torch reads these annotations)
        score: Optional[Tensor],  # noqa: UP045
        keys: Optional[Tensor],  # noqa: UP045
        encoder_states: Optional[Tensor],  # noqa: UP045
        src_mask: Optional[Tensor],  # noqa: UP045
    ) -> tuple[Tensor, Tensor, Tensor]:
        tensors = (
            word_gates, first_state, weight, bias, context_weight, score, keys,
            encoder_states, src_mask,
        )  # fmt: skip
        with as_given(word_gates):
            kept = run_forward(Inputs(*tensors).cast(), kernels)
        ctx.save_for_backward(*tensors, *kept)
        ctx.kernels = kernels
        ctx.set_materialize_grads(False)
        attention = kept.attention.transpose(0, 1)
        return kept.states[1:].transpose(0, 1), kept.contexts.transpose(0, 1), attention

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_states: Optional[Tensor],  # noqa: UP045
        d_contexts: Optional[Tensor],  # noqa: UP045
        d_attention: Optional[Tensor],  # noqa: UP045
    ) -> tuple[Optional[Tensor], ...]:  # noqa: UP045
        given, kept = Inputs(*ctx.saved_tensors[:9]), Kept(*ctx.saved_tensors[9:])
        if d_states is None:
            d_states = torch.zeros_like(kept.states[1:].transpose(0, 1))
        with as_given(d_states):
            gradients = run_backward(
                given.cast(), kept, d_states, d_contexts, d_attention, ctx.kernels
            )
        of_inputs = [
            None if gradient is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip(gradients, ctx.saved_tensors[:9], strict=True)
        ]
        return None, *of_inputs


def is_for(tensor: Tensor) -> bool:
    """Whether this loop is the one for a tensor's device; other devices have their own."""
    return tensor.is_cuda


def path_taken(device: torch.device) -> str:
    """Which way the recurrence is computed on a device, and why, for the user."""
    example = torch.empty(0, device=device)
    reason = why_not_triton(example)
    if reason is None:
        return "Triton kernels"
    return f"plain PyTorch with its own backward ({reason})"


def recurrence(
    *tensors: Tensor | None, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The loop over the tensors of `Inputs`, differentiable.

    Args:
        tensors: in the order of `Inputs`.
        kernels: which to run; the Triton ones where they can be, by default.

    Returns:
        States `[batch, trg_len, hidden]`, contexts `[batch, trg_len, states]` and
        attention `[batch, trg_len, src_len]` (float32).
    """
    if kernels is None:
        keys = tensors[6]
        can = available(_must(tensors[0]), 0 if keys is None else keys.shape[1])
        kernels = OnTriton() if can else PLAIN
    outputs: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(kernels, *tensors)  # type: ignore[no-untyped-call]
    return outputs


def _must(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
