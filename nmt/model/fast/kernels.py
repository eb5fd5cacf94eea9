"""The operations of one recurrence step, in three implementations with one interface.

- `REFERENCE`: PyTorch, any device and type. Tests compare the others with it. On a GPU it writes
  the `[batch, src_len, units]` tensor of every step to memory several times and launches about
  twenty kernels per step.
- `CpuKernels`: PyTorch for CPUs, in place and without tanh.
- `TritonKernels` (in `triton_launch`): one launch per operation, for GPUs.

`recurrence` has the loop over the steps.

Two types occur: *storage*, the type of the matrix products (bfloat16, float32 or float64), and
*exact*, the type of sums and non-linear functions (float32, or float64 for float64 tensors).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from nmt.model.attention import exp_2x
from nmt.symbols import PAD


def exact_type(storage: torch.dtype) -> torch.dtype:
    """Return the type of sums and of the carried state."""
    return torch.promote_types(storage, torch.float32)


class Kernels(Protocol):
    """The operations of one step. Outputs are written into argument tensors.

    Sizes: `units` of the attention score, `states` of an encoder state, `hidden` of the GRU,
    `gate_size` = 3 * hidden. `recurrent` is `[batch, gate_size + units]`: U s_{i-1} for reset,
    update and candidate, followed by the query W_a s_{i-1}.
    """

    def prepare_keys(self, keys: Tensor) -> Tensor:
        """Return `keys`, U_a h_j `[batch, src_len, units]`, as the other operations take them."""

    def attend(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        """Write a_ij to `attention` `[batch, src_len]` (exact) and c_i to `context` (storage).

        Every row of `src_mask` has a real token. `query` may be overwritten with the form that
        `attend_backward` takes.
        """

    def attend_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        """Write `d_energies` `[batch, src_len]` (exact) and `d_query` `[batch, units]`.

        `d_attention` is the gradient of a_ij apart from that through c_i, if there is any.
        """

    def key_grads(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of `keys` and `score`, summed over all steps.

        Call once, after `attend_backward` of every step. `queries` is
        `[trg_len, batch, units]`, `d_energies` is `[trg_len, batch, src_len]`.
        """

    def encoder_grads(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        """Return the gradient of the encoder states through all c_i, `[batch, src_len, states]`.

        `attention` is `[trg_len, batch, src_len]`, `d_contexts` is `[trg_len, batch, states]`.
        """

    def gates(
        self, input_gates: Tensor, context_gates: Tensor | None, recurrent: Tensor,
        exact_state: Tensor, candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        """Compute the GRU: replace s_{i-1} in `exact_state` by s_i, and write `state`, `candidate`.

        The pre-activations are `input_gates` + `context_gates` (`[batch, gate_size]` each; the
        latter may be overwritten) and the first `gate_size` columns of `recurrent`. Its first
        2 * hidden columns are overwritten with the reset and the update gate.
        """

    def gates_backward(
        self, d_state: Tensor, d_carried: Tensor, d_product: Tensor, recurrent: Tensor,
        candidate: Tensor, previous_state: Tensor, d_input_gates: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        """Propagate the gradient of s_i, `d_state` + `d_carried` + `d_product`, to the gates.

        Writes `d_input_gates` and the first `gate_size` columns of `d_recurrent`. Replaces
        `d_carried` (exact) by the gradient of s_{i-1} through the update gate, without that
        through U.
        """

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Replace scores by the gradient of the label-smoothed loss.

        Args:
            logits: without `bias`, `[tokens, vocab]` (storage).
            bias: `[vocab]` (exact).
            reference: target ids, `[tokens]`; PAD has no loss.
            label_smoothing: probability mass spread evenly over the vocabulary.

        Returns:
            Cross-entropy with the reference and with the uniform distribution, `[tokens]` each
            (exact). The smoothed loss is (1 - label_smoothing) of the first plus
            label_smoothing of the second.
        """


class _ReferenceKernels:
    """The operations as their formulas, in PyTorch."""

    def prepare_keys(self, keys: Tensor) -> Tensor:
        return keys

    def attend(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        exact = attention.dtype
        energies = self._tanh_sum(query, keys, exact) @ score.to(exact)
        attention.copy_(torch.softmax(energies.masked_fill(~src_mask, -torch.inf), dim=1))
        weighted_sum = torch.bmm(attention.unsqueeze(1), encoder_states.to(exact))
        context.copy_(weighted_sum.squeeze(1))

    def attend_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        del src_mask  # the attention is 0 on padding
        exact = attention.dtype
        d_weights = torch.bmm(encoder_states.to(exact), d_context.to(exact).unsqueeze(2))
        d_energies.copy_(_softmax_backward(attention, d_weights.squeeze(2), d_attention))
        slope = 1 - self._tanh_sum(query, keys, exact).square()  # [batch, src_len, units]
        d_sum = torch.bmm(d_energies.unsqueeze(1), slope).squeeze(1)
        d_query.copy_(d_sum * score.to(exact))

    def key_grads(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        del src_mask
        exact = d_energies.dtype
        d_keys = torch.zeros_like(keys, dtype=exact)
        d_score = torch.zeros_like(score, dtype=exact)
        for query, d_energy in zip(queries, d_energies, strict=True):
            tanh_sum = self._tanh_sum(query, keys, exact)
            scaled = tanh_sum * d_energy.unsqueeze(2)
            d_score += scaled.sum(dim=(0, 1))
            d_keys += torch.addcmul(d_energy.unsqueeze(2), scaled, tanh_sum, value=-1)
        return (d_keys * score.to(exact)).to(keys.dtype), d_score

    def encoder_grads(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        total = torch.bmm(
            attention.permute(1, 2, 0), d_contexts.to(attention.dtype).transpose(0, 1)
        )  # [batch, src_len, trg_len] x [batch, trg_len, states]
        return total.to(d_contexts.dtype)

    def gates(
        self, input_gates: Tensor, context_gates: Tensor | None, recurrent: Tensor,
        exact_state: Tensor, candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        two, exact = 2 * exact_state.shape[1], exact_state.dtype
        gates = input_gates.to(exact)
        if context_gates is not None:
            gates = gates + context_gates
        hidden_candidate = recurrent[:, two : gates.shape[1]].to(exact)
        reset_update = torch.sigmoid(gates[:, :two] + recurrent[:, :two])
        reset, update = reset_update.chunk(2, dim=1)
        new = torch.tanh(gates[:, two:] + reset * hidden_candidate)
        exact_state.copy_(new + update * (exact_state - new))
        recurrent[:, :two] = reset_update
        candidate.copy_(new)
        state.copy_(exact_state)

    def gates_backward(
        self, d_state: Tensor, d_carried: Tensor, d_product: Tensor, recurrent: Tensor,
        candidate: Tensor, previous_state: Tensor, d_input_gates: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        gate_size, exact = d_input_gates.shape[1], d_carried.dtype
        gradient = d_carried + d_state + d_product
        reset, update, hidden_candidate = recurrent[:, :gate_size].to(exact).chunk(3, dim=1)
        new, old = candidate.to(exact), previous_state.to(exact)
        d_candidate = gradient * (1 - update) * (1 - new * new)
        d_reset = d_candidate * hidden_candidate * reset * (1 - reset)
        d_update = gradient * (old - new) * update * (1 - update)
        d_carried.copy_(gradient * update)
        d_input_gates.copy_(torch.cat([d_reset, d_update, d_candidate], dim=1))
        d_recurrent[:, :gate_size] = torch.cat([d_reset, d_update, d_candidate * reset], dim=1)

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        ids = reference.unsqueeze(1)
        real = (ids != PAD).to(bias.dtype)
        log_probs = torch.log_softmax(logits + bias, dim=1)
        losses, uniform_losses = -log_probs.gather(1, ids).squeeze(1), -log_probs.mean(dim=1)
        # softmax - target; the target has 1 - label_smoothing more on the reference.
        gradient = log_probs.exp_().sub_(label_smoothing / len(bias))
        gradient.scatter_(1, ids, gradient.gather(1, ids) - (1 - label_smoothing))
        logits.copy_(gradient.mul_(real))
        return losses * real.squeeze(1), uniform_losses * real.squeeze(1)

    def _tanh_sum(self, query: Tensor, keys: Tensor, exact: torch.dtype) -> Tensor:
        """Return tanh(W_a s_{i-1} + U_a h_j), `[batch, src_len, units]`."""
        return torch.tanh(keys.to(exact) + query.to(exact).unsqueeze(1))


class CpuKernels(_ReferenceKernels):
    """The operations for a CPU; storage and exact type are the same.

    With r = 1 / (exp(2k) exp(2q) + 1), tanh(k + q) = 1 - 2r. exp(2k) is computed once per
    sentence and exp(2q) once per step, so an energy costs one multiplication and one reciprocal.
    The softmax does not depend on the constant 1. Other tanh(x) are 2 sigmoid(2x) - 1, which
    PyTorch computes several times faster on most CPUs.

    An instance serves one recurrence: it keeps a buffer and the sums of `key_grads`, which
    `attend_backward` adds to while it has r.
    """

    def __init__(self) -> None:
        self._r = torch.empty(0)
        self._slope = self._d_keys = self._d_score = torch.empty(0)

    def prepare_keys(self, keys: Tensor) -> Tensor:
        self._r = torch.empty_like(keys)
        self._ones = keys.new_ones(1)
        return exp_2x(keys)

    def attend(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        query.copy_(exp_2x(query))
        energies = (self._r_of(query, keys) @ (-2.0 * score)).masked_fill_(~src_mask, -torch.inf)
        torch.softmax(energies, dim=1, out=attention)
        torch.bmm(attention.unsqueeze(1), encoder_states, out=context.unsqueeze(1))

    def attend_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        del src_mask
        if not len(self._d_keys):
            self._slope, self._d_keys = torch.empty_like(keys), torch.zeros_like(keys)
            self._d_score = torch.zeros_like(score)
        d_weights = torch.bmm(encoder_states, d_context.unsqueeze(2)).squeeze(2)
        d_energies.copy_(_softmax_backward(attention, d_weights, d_attention))
        # tanh = 1 - 2r, and `d_energies` of a sentence sum to 0; tanh' = 4 (r - r^2). Constant
        # factors are applied to the sums.
        r = self._r_of(query, keys)
        self._d_score.addmv_(r.flatten(0, 1).t(), d_energies.flatten(), alpha=-2.0)
        torch.addcmul(r, r, r, value=-1.0, out=self._slope)
        self._d_keys.addcmul_(self._slope, d_energies.unsqueeze(2))
        d_sum = torch.bmm(d_energies.unsqueeze(1), self._slope).squeeze(1)
        torch.mul(d_sum, 4.0 * score, out=d_query)

    def key_grads(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        del queries, d_energies, keys, src_mask
        sums = self._d_keys.mul_(4.0 * score), self._d_score
        self._slope = self._d_keys = self._d_score = torch.empty(0)
        return sums

    def gates(
        self, input_gates: Tensor, context_gates: Tensor | None, recurrent: Tensor,
        exact_state: Tensor, candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        hidden = exact_state.shape[1]
        gates = input_gates if context_gates is None else context_gates.add_(input_gates)
        two = 2 * hidden
        reset_update = recurrent[:, :two].add_(gates[:, :two]).sigmoid_()
        reset, update = reset_update.chunk(2, dim=1)
        torch.addcmul(gates[:, two:], reset, recurrent[:, two : 3 * hidden], out=candidate)
        candidate.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
        torch.lerp(candidate, exact_state, update, out=state)
        exact_state.copy_(state)

    def gates_backward(
        self, d_state: Tensor, d_carried: Tensor, d_product: Tensor, recurrent: Tensor,
        candidate: Tensor, previous_state: Tensor, d_input_gates: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        hidden = d_carried.shape[1]
        two, aten = 2 * hidden, torch.ops.aten
        reset, update, hidden_candidate = recurrent[:, : 3 * hidden].chunk(3, dim=1)
        d_reset_update, d_candidate = d_input_gates[:, :two], d_input_gates[:, two:]
        gradient = d_carried.add_(d_state).add_(d_product)
        through_candidate = torch.addcmul(gradient, gradient, update, value=-1.0)
        aten.tanh_backward.grad_input(through_candidate, candidate, grad_input=d_candidate)
        d_gates = torch.empty_like(d_reset_update)
        torch.mul(d_candidate, hidden_candidate, out=d_gates[:, :hidden])
        torch.sub(previous_state, candidate, out=d_gates[:, hidden:]).mul_(gradient)
        aten.sigmoid_backward.grad_input(d_gates, recurrent[:, :two], grad_input=d_reset_update)
        d_recurrent[:, :two] = d_reset_update
        torch.mul(d_candidate, reset, out=d_recurrent[:, two : 3 * hidden])
        gradient.mul_(update)

    def _r_of(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.addcmul(self._ones, keys, query.unsqueeze(1), out=self._r).reciprocal_()


def _softmax_backward(attention: Tensor, d_weights: Tensor, d_attention: Tensor | None) -> Tensor:
    """Return the gradient of the energies from both gradients of a_ij, `[batch, src_len]`."""
    if d_attention is not None:
        d_weights = d_weights + d_attention
    return attention * (d_weights - (attention * d_weights).sum(dim=1, keepdim=True))


REFERENCE: Kernels = _ReferenceKernels()
