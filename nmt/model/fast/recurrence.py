"""The teacher-forced recurrence as one autograd function, on CPUs and GPUs.

`unroll_by_step` is the definition: `Decoder.step` once per target token. Differentiating it keeps
every intermediate of every step, and computes every weight gradient in small products, one per
step. `unroll` returns the same values:

- forward keeps gates, queries, attention and contexts of each step, but not the tanh of the
  energies, `[batch, src_len, units]` per step, which backward computes again;
- backward runs the loop for the gradient of the state only, and computes each weight gradient
  afterwards, in one product over all steps.

On a GPU the products have the type of `input_gates` (bfloat16 under autocast), and the state is
carried in float32. On a CPU all tensors have the type of the weights, and only the products have
that of autocast. Nothing synchronises with the GPU, so a CUDA graph can capture the loop.

Tensors inside are time first, so that a step is contiguous. `kernels` has the operations of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.model.attention import AdditiveAttention
from nmt.model.decoder import Decoder, Memory
from nmt.model.fast.kernels import CpuKernels, Kernels, exact_type
from nmt.model.fast.triton_launch import select_kernels
from nmt.model.fast.weight import Weight, autocast_precision, no_autocast


@dataclass(frozen=True)
class AttentionInputs:
    """What the recurrence reads for attention.

    Attributes:
        context_weight: C, `[gate_size, states]`.
        score: v_a, `[units]`.
        keys: U_a h_j, `[batch, src_len, units]`.
        encoder_states: h_j, `[batch, src_len, states]`.
        src_mask: True on real tokens, `[batch, src_len]`.
    """

    context_weight: Tensor
    score: Tensor
    keys: Tensor
    encoder_states: Tensor
    src_mask: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the attributes in order."""
        return self.context_weight, self.score, self.keys, self.encoder_states, self.src_mask


@dataclass(frozen=True)
class RecurrenceInputs:
    """What the recurrence reads.

    Attributes:
        input_gates: pre-activations that do not depend on the state, followed by the word's part
            of the query, if there is one, `[batch, trg_len, gate_size (+ units)]`.
        initial_state: s_0, `[batch, hidden]`.
        weight: U and W_a, `[gate_size + units, hidden]`.
        bias: of the same product, `[gate_size + units]`.
        attention: None for a plain GRU.
    """

    input_gates: Tensor
    initial_state: Tensor
    weight: Tensor
    bias: Tensor
    attention: AttentionInputs | None = None

    @staticmethod
    def from_tensors(tensors: tuple[Tensor, ...]) -> RecurrenceInputs:
        """Inverse of `tensors`."""
        attention = AttentionInputs(*tensors[4:]) if len(tensors) > 4 else None
        input_gates, initial_state, weight, bias = tensors[:4]
        return RecurrenceInputs(input_gates, initial_state, weight, bias, attention)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors in order."""
        tensors = (self.input_gates, self.initial_state, self.weight, self.bias)
        return tensors if self.attention is None else (*tensors, *self.attention.tensors())

    def cast(self, dtype: torch.dtype) -> RecurrenceInputs:
        """Convert to one type, contiguous; not the initial state, the score and the mask."""

        def convert(tensor: Tensor) -> Tensor:
            return tensor.to(dtype).contiguous()

        attention = self.attention
        if attention is not None:
            attention = AttentionInputs(
                convert(attention.context_weight), attention.score.contiguous(),
                convert(attention.keys), convert(attention.encoder_states),
                attention.src_mask.contiguous(),
            )  # fmt: skip
        gates = self.input_gates.to(dtype)
        return RecurrenceInputs(
            gates if gates.stride(2) == 1 else gates.contiguous(),
            self.initial_state, convert(self.weight), convert(self.bias), attention,
        )  # fmt: skip


class SavedForBackward(NamedTuple):
    """What forward keeps, time first.

    Attributes:
        states: s_0..s_T, `[trg_len + 1, batch, hidden]`.
        recurrent: reset gate, update gate, the candidate's U s_{i-1}, and the query as
            `Kernels.attend` leaves it, `[trg_len, batch, gate_size + units]`.
        candidates: `[trg_len, batch, hidden]`.
        keys: from `Kernels.prepare_keys`; empty without attention.
        attention: a_ij, `[trg_len, batch, src_len]`, exact type.
        contexts: c_i, `[trg_len, batch, states]`.
    """

    states: Tensor
    recurrent: Tensor
    candidates: Tensor
    keys: Tensor
    attention: Tensor
    contexts: Tensor


@torch.no_grad()
def run_forward(
    inputs: RecurrenceInputs, kernels: Kernels, precision: torch.dtype
) -> SavedForBackward:
    """Run the loop on inputs from `RecurrenceInputs.cast`; products in `precision`."""
    (batch, hidden), steps = inputs.initial_state.shape, inputs.input_gates.shape[1]
    gate_size, att = 3 * hidden, inputs.attention
    input_gates, word_queries = inputs.input_gates.tensor_split([gate_size], dim=2)
    new = inputs.input_gates.new_empty
    state = inputs.initial_state.to(exact_type(inputs.input_gates.dtype), copy=True).contiguous()
    states = new(steps + 1, batch, hidden)
    states[0] = state
    recurrent = new(steps, batch, len(inputs.weight))
    candidates = new(steps, batch, hidden)
    src_len, state_size = (0, 0) if att is None else att.encoder_states.shape[1:]
    keys = new(0) if att is None else kernels.prepare_keys(att.keys)
    attention = state.new_empty(steps, batch, src_len)
    contexts = new(steps, batch, state_size)
    context_gates = None
    weight = Weight(inputs.weight, precision)
    context_weight = None if att is None else Weight(att.context_weight, precision)
    word_in_query = word_queries.shape[2] > 0
    if word_in_query:  # added for all steps at once, below the products with the state
        recurrent.copy_(inputs.bias.expand_as(recurrent))
        recurrent[:, :, gate_size:].add_(word_queries.transpose(0, 1))
    for step in range(steps):
        base = recurrent[step] if word_in_query else inputs.bias
        weight.forward(states[step], base, out=recurrent[step])
        if att is not None and context_weight is not None:
            kernels.attend(
                recurrent[step, :, gate_size:], keys, att.encoder_states, att.score,
                att.src_mask, attention[step], contexts[step],
            )  # fmt: skip
            context_gates = context_weight.product(contexts[step], out=context_gates)
        kernels.gates(
            input_gates[:, step], context_gates, recurrent[step], state,
            candidates[step], states[step + 1],
        )  # fmt: skip
    return SavedForBackward(states, recurrent, candidates, keys, attention, contexts)


@torch.no_grad()
def run_backward(
    inputs: RecurrenceInputs,
    saved: SavedForBackward,
    d_states: Tensor,
    d_contexts: Tensor | None,
    d_attention: Tensor | None,
    kernels: Kernels,
    precision: torch.dtype,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `RecurrenceInputs.tensors`.

    Args:
        inputs: argument of `run_forward`.
        saved: result of `run_forward`.
        d_states: of s_1..s_T, `[batch, trg_len, hidden]`.
        d_contexts: of c_1..c_T, `[batch, trg_len, states]`; None for zeros.
        d_attention: of a_ij, `[batch, trg_len, src_len]`; None for zeros.
        kernels: those of forward.
        precision: that of forward.
    """
    steps, batch, hidden = saved.candidates.shape
    gate_size, att = 3 * hidden, inputs.attention
    new = inputs.input_gates.new_empty
    if d_states.stride(2) != 1:
        d_states = d_states.contiguous()
    if d_attention is not None and d_attention.stride(2) != 1:
        d_attention = d_attention.contiguous()
    d_carried = torch.zeros_like(saved.states[0], dtype=exact_type(saved.states.dtype))
    d_product = torch.zeros_like(saved.states[0])
    d_input_gates = new(steps, batch, gate_size)
    d_recurrent = new(steps, batch, len(inputs.weight))
    d_energies = torch.empty_like(saved.attention)
    d_context = torch.zeros_like(saved.contexts)
    if d_contexts is not None:
        d_context.copy_(d_contexts.transpose(0, 1))
    weight = Weight(inputs.weight, precision)
    context_weight = None if att is None else Weight(att.context_weight, precision)
    for step in range(steps - 1, -1, -1):
        kernels.gates_backward(
            d_states[:, step], d_carried, d_product, saved.recurrent[step],
            saved.candidates[step], saved.states[step], d_input_gates[step], d_recurrent[step],
        )  # fmt: skip
        if att is not None and context_weight is not None:
            context_weight.backward(d_input_gates[step], d_context[step], out=d_context[step])
            kernels.attend_backward(
                d_context[step], None if d_attention is None else d_attention[:, step],
                saved.attention[step], saved.recurrent[step, :, gate_size:], saved.keys,
                att.encoder_states, att.score, att.src_mask, d_energies[step],
                d_recurrent[step, :, gate_size:],
            )  # fmt: skip
        weight.transposed_product(d_recurrent[step], out=d_product)
    d_words = d_input_gates
    if inputs.input_gates.shape[2] > gate_size:  # the word's part has the query's gradient
        d_words = torch.cat([d_input_gates, d_recurrent[:, :, gate_size:]], dim=2)
    d_weight = weight.gradient(d_recurrent, saved.states[:-1])
    gradients = (
        d_words.transpose(0, 1), d_carried + d_product, d_weight, d_recurrent.sum(dim=(0, 1)),
    )  # fmt: skip
    if att is None or context_weight is None:
        return gradients
    d_context_weight = context_weight.gradient(d_input_gates, saved.contexts)
    d_keys, d_score = kernels.key_grads(
        saved.recurrent[:, :, gate_size:], d_energies, saved.keys, att.score, att.src_mask
    )
    d_encoder_states = kernels.encoder_grads(saved.attention, d_context)
    return (*gradients, d_context_weight, d_score, d_keys, d_encoder_states, None)


class _Recurrence(torch.autograd.Function):
    """The loop and its backward."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, dtype: torch.dtype, precision: torch.dtype, *tensors: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        with no_autocast(tensors[0]):
            inputs = RecurrenceInputs.from_tensors(tensors).cast(dtype)
            saved = run_forward(inputs, kernels, precision)
        ctx.save_for_backward(*saved, *tensors)
        ctx.kernels, ctx.dtype, ctx.precision = kernels, dtype, precision
        ctx.set_materialize_grads(False)
        attention = saved.attention.transpose(0, 1)
        return saved.states[1:].transpose(0, 1), saved.contexts.transpose(0, 1), attention

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_states: Any, d_contexts: Any, d_attention: Any
    ) -> tuple[Tensor | None, ...]:
        size = len(SavedForBackward._fields)
        saved = SavedForBackward(*ctx.saved_tensors[:size])
        tensors = ctx.saved_tensors[size:]
        if d_states is None:
            d_states = torch.zeros_like(saved.states[1:].transpose(0, 1))
        with no_autocast(d_states):
            gradients = run_backward(
                RecurrenceInputs.from_tensors(tensors).cast(ctx.dtype), saved,
                d_states, d_contexts, d_attention, ctx.kernels, ctx.precision,
            )  # fmt: skip
        cast = (
            None if gradient is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip(gradients, tensors, strict=True)
        )
        return None, None, None, *cast


def recurrence(
    inputs: RecurrenceInputs, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence, differentiably.

    Args:
        inputs: its tensors.
        kernels: by default the fastest for the device.

    Returns:
        states `[batch, trg_len, hidden]`, contexts `[batch, trg_len, states]` and attention
        `[batch, trg_len, src_len]` (float32 or float64).
    """
    src_len = 0 if inputs.attention is None else inputs.attention.keys.shape[1]
    kernels = kernels or select_kernels(inputs.input_gates, src_len)
    dtype = precision = inputs.input_gates.dtype
    if isinstance(kernels, CpuKernels):
        dtype = inputs.weight.dtype
        precision = autocast_precision("cpu", dtype)
    outputs: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(  # type: ignore[no-untyped-call]
        kernels, dtype, precision, *inputs.tensors()
    )
    return outputs


def unroll(
    decoder: Decoder, input_gates: Tensor, initial_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the decoder over target sentences whose tokens are known (teacher forcing).

    Args:
        decoder: whose `step` is computed.
        input_gates: of trg_in, from `Decoder.input_gates`,
            `[batch, trg_len, gate_size + word_query_size]`.
        initial_state: s_0, `[batch, hidden]`.
        memory: the encoded sources.

    Returns:
        states s_1..s_T `[batch, trg_len, hidden]`, contexts `[batch, trg_len, state_size]`,
        attention `[batch, trg_len, src_len]`.
    """
    weight, bias = decoder.recurrent.weight, decoder.recurrent.bias
    if isinstance(decoder.attention, AdditiveAttention):
        attention_inputs = AttentionInputs(
            decoder.context_gates.weight, decoder.attention.score,
            memory.keys, memory.encoder_states, memory.src_mask,
        )  # fmt: skip
        return recurrence(
            RecurrenceInputs(input_gates, initial_state, weight, bias, attention_inputs)
        )
    # The context does not depend on the step, so its part of the gates is computed once.
    batch, steps = input_gates.shape[:2]
    context, attention = decoder.attention(
        input_gates.new_empty(batch, 1, 0), memory.keys, memory.encoder_states, memory.src_mask
    )
    input_gates = input_gates + decoder.context_gates(context)
    states, _, _ = recurrence(RecurrenceInputs(input_gates, initial_state, weight, bias))
    return states, context.expand(-1, steps, -1), attention.expand(-1, steps, -1)


def unroll_by_step(
    decoder: Decoder, input_gates: Tensor, initial_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition of `unroll`: `Decoder.step` in a loop, differentiated by PyTorch."""
    state = initial_state.unsqueeze(1)  # [batch, beam of 1, hidden]
    outputs = []
    for gates in torch.split(input_gates, 1, dim=1):
        state, context, attention = decoder.step(gates, state, memory)
        outputs.append((state, context, attention))
    states, contexts, attentions = zip(*outputs, strict=True)
    return torch.cat(states, dim=1), torch.cat(contexts, dim=1), torch.cat(attentions, dim=1)
