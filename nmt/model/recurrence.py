"""The teacher-forced time loop, as one differentiable operation with its own backward.

`unroll_by_step` is the definition: the decoder's step, once for each target token. A
framework that differentiates it keeps every intermediate result of every step and makes
every weight gradient a small product a step. `unroll` gives the same numbers with less:

- forward keeps the gates, the queries, the attention and the contexts of each step, but
  not the tanh of the energies, the largest tensor there is: backward makes it again;
- backward runs once over time for what must be sequential, the gradient of the state,
  and makes each weight gradient afterwards, one large product over all steps.

The two are pinned to each other by a test, in double precision by `gradcheck`.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.model.attention import AdditiveAttention
from nmt.model.decoder import Decoder, Memory


def unroll(
    decoder: Decoder, word_gates: Tensor, first_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the decoder's step over target sentences whose tokens are given.

    Args:
        decoder: owner of the step.
        word_gates: of trg_in, `[batch, trg_len, 3*hidden]`.
        first_state: s_0, `[batch, hidden]`.
        memory: of the batch.

    Returns:
        States s_1..s_T `[batch, trg_len, hidden]`, contexts `[batch, trg_len, states]`,
        attention `[batch, trg_len, src_len]` (no gradient flows through this one).
    """
    recurrent = decoder.recurrent
    if not isinstance(decoder.attention, AdditiveAttention):
        return _unroll_fixed(decoder, word_gates, first_state, memory)
    states, contexts, attention = _recurrence(
        word_gates, first_state, recurrent.weight, recurrent.bias, decoder.context_gates.weight,
        decoder.attention.score, memory.keys, memory.encoder_states, memory.src_mask,
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, steps, three = word_gates.shape
        hidden = three // 3
        given = word_gates.transpose(0, 1).contiguous()  # [trg_len, batch, 3*hidden]
        states = given.new_empty(steps + 1, batch, hidden)
        states[0] = first_state
        gates = torch.empty_like(given)  # reset, update, candidate
        own_candidate = given.new_empty(steps, batch, hidden)
        looks = _Looks(score, keys, encoder_states, src_mask, steps)
        for step in range(steps):
            recurrent = torch.addmm(bias, states[step], weight.t())
            now = given[step]
            if context_weight is not None:
                context = looks.forward(step, recurrent[:, three:])
                now = torch.addmm(now, context, context_weight.t())
            own = recurrent[:, 2 * hidden : three]
            reset_update = torch.sigmoid(now[:, : 2 * hidden] + recurrent[:, : 2 * hidden])
            candidate = torch.addcmul(now[:, 2 * hidden :], reset_update[:, :hidden], own).tanh_()
            torch.lerp(candidate, states[step], reset_update[:, hidden:], out=states[step + 1])
            gates[step, :, : 2 * hidden] = reset_update
            gates[step, :, 2 * hidden :] = candidate
            own_candidate[step] = own
        ctx.save_for_backward(
            states, gates, own_candidate, weight, context_weight,
            score, keys, encoder_states, looks.queries, looks.attention, looks.contexts,
        )  # fmt: skip
        attention = looks.attention.transpose(0, 1)
        ctx.mark_non_differentiable(attention)
        return states[1:].transpose(0, 1), looks.contexts.transpose(0, 1), attention

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_states: Tensor, d_contexts: Tensor, _d_attention: Tensor
    ) -> tuple[Optional[Tensor], ...]:  # noqa: UP045
        (
            states, gates, own_candidate, weight, context_weight,
            score, keys, encoder_states, queries, attention, contexts,
        ) = ctx.saved_tensors  # fmt: skip
        steps, batch, three = gates.shape
        hidden = three // 3
        looks = _LooksBackward(score, keys, encoder_states, queries, attention)
        d_given = torch.empty_like(gates)
        d_recurrent = gates.new_empty(steps, batch, weight.shape[0])
        d_context = d_contexts.transpose(0, 1).contiguous()
        d_state = torch.zeros_like(states[0])
        for step in range(steps - 1, -1, -1):
            d_state = d_state + d_states[:, step]
            reset, update, candidate = gates[step].chunk(3, dim=1)
            d_candidate = d_state * (1 - update) * (1 - candidate * candidate)
            d_reset = d_candidate * own_candidate[step] * reset * (1 - reset)
            d_update = d_state * (states[step] - candidate) * update * (1 - update)
            torch.cat([d_reset, d_update, d_candidate], dim=1, out=d_given[step])
            d_own = d_recurrent[step]
            d_own[:, :hidden] = d_reset
            d_own[:, hidden : 2 * hidden] = d_update
            torch.mul(d_candidate, reset, out=d_own[:, 2 * hidden : three])
            if context_weight is not None:
                d_context[step].addmm_(d_given[step], context_weight)
                d_own[:, three:] = looks.backward(step, d_context[step])
            d_state = torch.addmm(d_state * update, d_own, weight)
        flat = d_recurrent.flatten(0, 1)
        d_weight = flat.t() @ states[:-1].flatten(0, 1)
        d_context_weight = None
        if context_weight is not None:
            d_context_weight = d_given.flatten(0, 1).t() @ contexts.flatten(0, 1)
        d_score, d_keys, d_encoder_states = looks.finish(d_context)
        return (
            d_given.transpose(0, 1), d_state, d_weight, flat.sum(dim=0), d_context_weight,
            d_score, d_keys, d_encoder_states, None,
        )  # fmt: skip


def _recurrence(*tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    outputs: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(*tensors)  # type: ignore[no-untyped-call]
    return outputs


class _Looks:
    """Additive attention, forward: one step at a time, with a buffer that stays."""

    def __init__(
        self,
        score: Tensor | None,
        keys: Tensor | None,
        encoder_states: Tensor | None,
        src_mask: Tensor | None,
        steps: int,
    ) -> None:
        self.score, self.keys, self.encoder_states = score, keys, encoder_states
        if score is None or keys is None or encoder_states is None or src_mask is None:
            self.queries = self.attention = self.contexts = torch.empty(0, 0, 0)
            return
        batch, src_len, units = keys.shape
        self.padding = ~src_mask
        self.mixed = torch.empty_like(keys)
        self.queries = keys.new_empty(steps, batch, units)
        self.attention = keys.new_empty(steps, batch, src_len)
        self.contexts = keys.new_empty(steps, batch, encoder_states.shape[2])

    def forward(self, step: int, query: Tensor) -> Tensor:
        """c_i `[batch, states]` of one step, from W_a s_{i-1} `[batch, units]`."""
        assert self.keys is not None
        assert self.score is not None
        assert self.encoder_states is not None
        self.queries[step] = query
        torch.add(self.keys, query.unsqueeze(1), out=self.mixed).tanh_()
        energies = (self.mixed @ self.score).masked_fill_(self.padding, -torch.inf)
        attention = self.attention[step]
        torch.softmax(energies, dim=1, out=attention)
        context = self.contexts[step]
        torch.bmm(attention.unsqueeze(1), self.encoder_states, out=context.unsqueeze(1))
        return context


class _LooksBackward:
    """Additive attention, backward: the tanh of each step is made again."""

    def __init__(
        self,
        score: Tensor | None,
        keys: Tensor | None,
        encoder_states: Tensor | None,
        queries: Tensor,
        attention: Tensor,
    ) -> None:
        self.score, self.keys, self.encoder_states = score, keys, encoder_states
        self.queries, self.attention = queries, attention
        if keys is not None and score is not None:
            self.mixed, self.scaled = torch.empty_like(keys), torch.empty_like(keys)
            self.d_keys, self.d_score = torch.zeros_like(keys), torch.zeros_like(score)

    def backward(self, step: int, d_context: Tensor) -> Tensor:
        """Gradient of W_a s_{i-1} `[batch, units]` from that of c_i `[batch, states]`."""
        assert self.keys is not None
        assert self.score is not None
        assert self.encoder_states is not None
        attention = self.attention[step]
        d_attention = torch.bmm(self.encoder_states, d_context.unsqueeze(2)).squeeze(2)
        inner = (attention * d_attention).sum(dim=1, keepdim=True)
        d_energies = (attention * (d_attention - inner)).unsqueeze(2)  # [batch, src_len, 1]
        torch.add(self.keys, self.queries[step].unsqueeze(1), out=self.mixed).tanh_()
        torch.mul(self.mixed, d_energies, out=self.scaled)
        self.d_score += self.scaled.sum(dim=(0, 1))
        # d tanh = 1 - tanh^2; the factor v_a is the same everywhere and comes last.
        torch.addcmul(d_energies, self.scaled, self.mixed, value=-1, out=self.mixed)
        self.d_keys += self.mixed
        return self.mixed.sum(dim=1) * self.score

    def finish(self, d_context: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of v_a, of U_a h_j and of h_j, over all steps."""
        if self.keys is None or self.score is None:
            return None, None, None
        d_encoder_states = torch.bmm(
            self.attention.permute(1, 2, 0), d_context.transpose(0, 1)
        )  # [batch, src_len, trg_len] x [batch, trg_len, states]
        return self.d_score, self.d_keys * self.score, d_encoder_states
