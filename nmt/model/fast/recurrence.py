"""The teacher-forced time loop, as one differentiable operation with its own backward.

`unroll_by_step` is the definition: the decoder's step, once for each target token. A
framework that differentiates it keeps every intermediate result of every step and makes
every weight gradient a small product a step. `unroll` gives the same numbers with less:

- forward keeps the gates, the queries, the attention and the contexts of each step, but
  not the tanh of the energies, the largest tensor there is: backward makes it again;
- backward runs once over time for what must be sequential, the gradient of the state,
  and makes each weight gradient afterwards, one large product over all steps;
- tanh(k + q) = 1 - 2 r with r = 1 / (exp(2k) exp(2q) + 1), and the softmax of the energies
  does not see the 1: with both exponentials made beforehand an energy costs a product and
  a reciprocal, a fraction of PyTorch's tanh on a CPU;
- under ``torch.autocast`` the products with weights are made in its precision, from weights
  rounded once for all steps; states, gates, softmax and sums stay in float32.

The two are pinned to each other by a test, in double precision by `gradcheck`.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.model.attention import AdditiveAttention, exp_twice
from nmt.model.decoder import Decoder, Memory
from nmt.model.fast import recurrence_cuda
from nmt.model.fast.weight import Weight, autocast_precision


def unroll(
    decoder: Decoder, word_gates: Tensor, first_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the decoder's step over target sentences whose tokens are given.

    Args:
        decoder: owner of the step.
        word_gates: of trg_in, `[batch, trg_len, 3*hidden (+ units)]`.
        first_state: s_0, `[batch, hidden]`.
        memory: of the batch.

    Returns:
        States s_1..s_T `[batch, trg_len, hidden]`, contexts `[batch, trg_len, states]`,
        attention `[batch, trg_len, src_len]`.
    """
    recurrent = decoder.recurrent
    if not isinstance(decoder.attention, AdditiveAttention):
        return _unroll_fixed(decoder, word_gates, first_state, memory)
    states, contexts, attention = _recurrence(
        word_gates, first_state, recurrent.weight, recurrent.bias,
        decoder.context_gates.weight, decoder.attention.score,
        memory.keys, memory.encoder_states, memory.src_mask,
    )  # fmt: skip
    return states, contexts, attention


def _unroll_fixed(
    decoder: Decoder, word_gates: Tensor, first_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """The same where the context does not depend on the step: it leaves the loop."""
    steps = word_gates.shape[1]
    none = word_gates.new_empty(word_gates.shape[0], 1, 0)
    context, attention = decoder.attention(
        none, memory.keys, memory.encoder_states, memory.src_mask
    )
    gates = word_gates + decoder.context_gates(context)
    recurrent = decoder.recurrent
    states, _, _ = _recurrence(
        gates, first_state, recurrent.weight, recurrent.bias, None, None, None, None, None
    )
    return states, context.expand(-1, steps, -1), attention.expand(-1, steps, -1)


def unroll_by_step(
    decoder: Decoder, word_gates: Tensor, first_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """What `unroll` means, step by step: the plain twin that tests compare it with."""
    state = first_state.unsqueeze(1)  # [batch, 1, hidden]: a beam of one
    states, contexts, attentions = [], [], []
    for gates in torch.split(word_gates, 1, dim=1):
        state, context, attention = decoder.step(gates, state, memory)
        states.append(state)
        contexts.append(context)
        attentions.append(attention)
    return torch.cat(states, dim=1), torch.cat(contexts, dim=1), torch.cat(attentions, dim=1)


class _Recurrence(torch.autograd.Function):
    """The loop over time. Tensors inside are time first, so that a step is contiguous."""

    @staticmethod
    def forward(
        ctx: Any,
        word_gates: Tensor,
        first_state: Tensor,
        weight: Tensor,
        bias: Tensor,
        context_weight: Optional[Tensor],  # noqa: UP045 (torch reads these annotations)
        score: Optional[Tensor],  # noqa: UP045
        keys: Optional[Tensor],  # noqa: UP045
        encoder_states: Optional[Tensor],  # noqa: UP045
        src_mask: Optional[Tensor],  # noqa: UP045
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (batch, hidden), steps = first_state.shape, word_gates.shape[1]
        three = 3 * hidden
        asks = word_gates.shape[2] > three  # the word is part of the query
        given = word_gates.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        states = given.new_empty(steps + 1, batch, hidden)
        states[0] = first_state
        gates = given.new_empty(steps, batch, three)  # reset, update, candidate
        own_candidate = given.new_empty(steps, batch, hidden)
        recurrent = given.new_empty(batch, weight.shape[0])
        looks = _Looks(score, keys, encoder_states, src_mask, steps)
        recur, read = Weight(weight, precision), Weight(context_weight, precision)
        for step in range(steps):
            recur.forward(states[step], bias, out=recurrent)
            now, opened = given[step, :, :three], gates[step]
            if context_weight is not None:
                query = recurrent[:, three:]
                context = looks.forward(step, query.add_(given[step, :, three:]) if asks else query)
                read.forward(context, now, out=now)
            _gru_step(now, recurrent[:, :three], states[step], opened, states[step + 1])
            own_candidate[step] = recurrent[:, 2 * hidden : three]
        # Rounded once for both ways. The weights are saved all the same: PyTorch then notices
        # if they change before backward.
        ctx.asks, ctx.recur, ctx.read = asks, recur, read
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            states, gates, own_candidate, weight, context_weight,
            score, looks.keys, encoder_states, looks.queries, looks.attention, looks.contexts,
        )  # fmt: skip
        attention = looks.attention.transpose(0, 1)
        return states[1:].transpose(0, 1), looks.contexts.transpose(0, 1), attention

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        d_states: Optional[Tensor],  # noqa: UP045
        d_contexts: Optional[Tensor],  # noqa: UP045
        d_attention: Optional[Tensor],  # noqa: UP045
    ) -> tuple[Optional[Tensor], ...]:  # noqa: UP045
        (
            states, gates, own_candidate, _weight, _context_weight,
            score, keys, encoder_states, queries, attention, contexts,
        ) = ctx.saved_tensors  # fmt: skip
        steps, batch, three = gates.shape
        hidden = three // 3
        looks = _LooksBackward(score, keys, encoder_states, queries, attention, d_attention)
        recur, read = ctx.recur, ctx.read
        d_given = torch.empty_like(gates)
        d_recurrent = gates.new_empty(steps, batch, recur.weight.shape[0])
        d_context = torch.zeros_like(contexts)
        if d_contexts is not None:
            d_context.copy_(d_contexts.transpose(0, 1))
        d_state = torch.zeros_like(states[0])
        for step in range(steps - 1, -1, -1):
            if d_states is not None:
                d_state += d_states[:, step]
            d_own = d_recurrent[step]
            _gru_step_backward(
                d_state, states[step], gates[step], own_candidate[step],
                d_given[step], d_own[:, :three],
            )  # fmt: skip
            if read.weight is not None:
                read.backward(d_given[step], d_context[step], out=d_context[step])
                d_own[:, three:] = looks.backward(step, d_context[step])
            d_state.mul_(gates[step, :, hidden : 2 * hidden])
            recur.backward(d_own, d_state, out=d_state)
        d_score, d_keys, d_encoder_states = looks.finish(d_context)
        d_context_weight = None
        if read.weight is not None:
            d_context_weight = read.gradient(d_given, contexts)
        d_words = d_given
        if ctx.asks:  # what the word adds to a query has the query's gradient
            d_words = torch.cat([d_given, d_recurrent[:, :, three:]], dim=2)
        return (
            d_words.transpose(0, 1), d_state, recur.gradient(d_recurrent, states[:-1]),
            d_recurrent.sum(dim=(0, 1)), d_context_weight,
            d_score, d_keys, d_encoder_states, None, None,
        )  # fmt: skip


def _recurrence(word_gates: Tensor, *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`_Recurrence` in the precision that autocast asks for, if it is on."""
    assert tensors[1] is not None
    if recurrence_cuda.is_for(word_gates):
        return recurrence_cuda.recurrence(word_gates, *tensors)
    whole = tensors[1].dtype  # of the weights, and of everything but the products
    device = word_gates.device.type
    precision = autocast_precision(device, whole)
    inputs = [
        tensor.to(whole) if tensor is not None and tensor.is_floating_point() else tensor
        for tensor in (word_gates, *tensors)
    ]
    with torch.autocast(device, enabled=False):
        outputs: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(*inputs, precision)  # type: ignore[no-untyped-call]
    return outputs


def _gru_step(given: Tensor, own: Tensor, before: Tensor, gates: Tensor, after: Tensor) -> None:
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


def _gru_step_backward(
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
    d_open = torch.empty_like(both)
    torch.mul(d_candidate, own_candidate, out=d_open[..., :hidden])
    torch.sub(before, candidate, out=d_open[..., hidden:]).mul_(d_state)
    torch.ops.aten.sigmoid_backward.grad_input(d_open, gates[..., : 2 * hidden], grad_input=both)
    d_own[..., : 2 * hidden] = both
    torch.mul(d_candidate, reset, out=d_own[..., 2 * hidden :])


class _Looks:
    """Additive attention, forward: one step at a time, with a buffer that stays.

    Attributes:
        keys: exp(2 U_a h_j), `[batch, src_len, units]`.
        queries: exp(2q) of each step's query q, `[trg_len, batch, units]`.
        attention: a_ij, `[trg_len, batch, src_len]`.
        contexts: c_i, `[trg_len, batch, states]`.
    """

    def __init__(
        self,
        score: Tensor | None,
        keys: Tensor | None,
        encoder_states: Tensor | None,
        src_mask: Tensor | None,
        steps: int,
    ) -> None:
        self.keys, self.encoder_states = keys, encoder_states
        if score is None or keys is None or encoder_states is None or src_mask is None:
            self.queries = self.attention = self.contexts = torch.empty(0, 0, 0)
            return
        batch, src_len, units = keys.shape
        self.keys, self.score = exp_twice(keys), -2.0 * score
        self.padding, self.one = ~src_mask, keys.new_ones(1)
        self.mixed = torch.empty_like(keys)
        self.queries = keys.new_empty(steps, batch, units)
        self.attention = keys.new_empty(steps, batch, src_len)
        self.contexts = keys.new_empty(steps, batch, encoder_states.shape[2])

    def forward(self, step: int, query: Tensor) -> Tensor:
        """c_i `[batch, states]` of one step, from its query `[batch, units]`."""
        assert self.keys is not None
        assert self.encoder_states is not None
        self.queries[step] = exp_twice(query)
        _half_tanh(self.keys, self.queries[step], self.one, self.mixed)
        energies = (self.mixed @ self.score).masked_fill_(self.padding, -torch.inf)
        attention = self.attention[step]
        torch.softmax(energies, dim=1, out=attention)
        context = self.contexts[step]
        torch.bmm(attention.unsqueeze(1), self.encoder_states, out=context.unsqueeze(1))
        return context


def _half_tanh(keys: Tensor, query: Tensor, one: Tensor, out: Tensor) -> None:
    """R = (1 - tanh(k + q)) / 2 into `out`, from the exponentials that `_Looks` keeps."""
    torch.addcmul(one, keys, query.unsqueeze(1), out=out).reciprocal_()


class _LooksBackward:
    """Additive attention, backward: the tanh of each step is made again.

    Args:
        d_attention: gradient of the attention from outside, `[batch, trg_len, src_len]`.
    """

    def __init__(
        self,
        score: Tensor | None,
        keys: Tensor | None,
        encoder_states: Tensor | None,
        queries: Tensor,
        attention: Tensor,
        d_attention: Tensor | None,
    ) -> None:
        self.score, self.keys, self.encoder_states = score, keys, encoder_states
        self.queries, self.attention, self.d_attention = queries, attention, d_attention
        if keys is not None and score is not None:
            self.one = keys.new_ones(1)
            self.mixed, self.slope = torch.empty_like(keys), torch.empty_like(keys)
            self.d_keys, self.d_score = torch.zeros_like(keys), torch.zeros_like(score)

    def backward(self, step: int, d_context: Tensor) -> Tensor:
        """Gradient of the query `[batch, units]` from that of c_i `[batch, states]`."""
        assert self.keys is not None
        assert self.score is not None
        assert self.encoder_states is not None
        attention = self.attention[step]
        d_attention = torch.bmm(self.encoder_states, d_context.unsqueeze(2)).squeeze(2)
        if self.d_attention is not None:
            d_attention += self.d_attention[:, step]
        inner = (attention * d_attention).sum(dim=1, keepdim=True)
        d_energies = attention * (d_attention - inner)  # [batch, src_len]
        # With r as in `_half_tanh`: tanh = 1 - 2r, and a sentence's d_energies sum to 0;
        # its slope is 4 (r - r^2). Factors that are the same everywhere come last.
        _half_tanh(self.keys, self.queries[step], self.one, self.mixed)
        self.d_score.addmv_(self.mixed.flatten(0, 1).t(), d_energies.flatten(), alpha=-2.0)
        torch.addcmul(self.mixed, self.mixed, self.mixed, value=-1.0, out=self.slope)
        self.d_keys.addcmul_(self.slope, d_energies.unsqueeze(2))
        d_query = torch.bmm(d_energies.unsqueeze(1), self.slope).squeeze(1)
        return d_query * (4.0 * self.score)

    def finish(self, d_context: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of v_a, of U_a h_j and of h_j, over all steps."""
        if self.keys is None or self.score is None:
            return None, None, None
        d_encoder_states = torch.bmm(
            self.attention.permute(1, 2, 0), d_context.transpose(0, 1)
        )  # [batch, src_len, trg_len] x [batch, trg_len, states]
        return self.d_score, self.d_keys * (4.0 * self.score), d_encoder_states
