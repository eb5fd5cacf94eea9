"""What one step of the recurrence computes, each operation twice: in PyTorch and in Triton.

The two have the same names and arguments and write into tensors given to them, so that the
loop (`recurrence_cuda`) does not know which it runs. `PLAIN` is the definition: it runs
anywhere, in any precision, and tests compare `OnTriton()` with it. On a GPU `PLAIN` moves
the `[batch, src_len, units]` tensor of every step to memory and back several times and
launches some twenty kernels a step, where the Triton ones launch one each.

Sums and non-linear functions are in float32 (float64 for float64 tensors); *exact* below
stands for that type, *kept* for the type of the products (bfloat16 or float32).
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nmt.symbols import PAD

_LONGEST = 1024  # source tokens that a program of the Triton kernels holds at once


def exact_type(kept: torch.dtype) -> torch.dtype:
    """The type to add up and to keep the state in."""
    return torch.promote_types(kept, torch.float32)


class Kernels(Protocol):
    """The operations of one step. All tensors of a step are `[batch, ...]`.

    Sizes: `units` of the score, `states` of an encoder state, `hidden` of the GRU;
    `recurrent` is `[batch, 3*hidden + units]`, U s_{i-1} and behind it W_a s_{i-1}.
    """

    def look(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        """Write `attention` a_ij `[batch, src_len]` (exact) and `context` c_i (kept).

        Every row of `src_mask` has a real token.
        """

    def look_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        """Write `d_energies` `[batch, src_len]` (exact) and `d_query` `[batch, units]`.

        `d_attention` is what reaches a_ij from elsewhere than c_i, if anything does.
        """

    def look_finish(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of `keys` and of `score`, from all steps.

        `queries` are `[trg_len, batch, units]`, `d_energies` `[trg_len, batch, src_len]`.
        """

    def spread(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        """Gradient of the encoder states, from `[trg_len, batch, ...]` of all steps."""

    def gates(
        self, given: Tensor, from_context: Tensor | None, recurrent: Tensor, exact: Tensor,
        candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        """One GRU step: `exact`, s_{i-1} `[batch, hidden]`, becomes s_i, and `state` too.

        The gates are sums of `given` and `from_context` (`[batch, 3*hidden]` each) and of
        `recurrent`, whose first thirds become the reset and the update gate: what backward
        needs lies where what it does not need was.
        """

    def gates_backward(
        self, d_state: Tensor, carried: Tensor, product: Tensor, recurrent: Tensor,
        candidate: Tensor, before: Tensor, d_given: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        """Gradient of s_i (the sum of the first three) to what the gates were given.

        Writes `d_given` and the first `3*hidden` of `d_recurrent`; `carried` (exact) becomes
        the part of the gradient of s_{i-1} that did not go through a product.
        """

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Turn scores into the gradient of the smoothed loss, in place.

        Args:
            logits: `bias` not added yet, `[tokens, vocab]` (kept).
            bias: `[vocab]` (exact).
            reference: what was to be predicted, `[tokens]`; PAD counts for nothing.
            label_smoothing: share of the target spread over the vocabulary.

        Returns:
            Cross-entropy with the reference and with the even distribution, `[tokens]` each
            (exact); the smoothed loss is (1 - e) of the one and e of the other.
        """


class _Plain:
    """The operations in PyTorch: the plain twin."""

    def look(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        exact = attention.dtype
        energies = self._mixed(query, keys, exact) @ score.to(exact)
        attention.copy_(torch.softmax(energies.masked_fill(~src_mask, -torch.inf), dim=1))
        mean = torch.bmm(attention.unsqueeze(1), encoder_states.to(exact))
        context.copy_(mean.squeeze(1))

    def look_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        del src_mask  # the attention is 0 where it is False
        exact = attention.dtype
        from_context = torch.bmm(encoder_states.to(exact), d_context.to(exact).unsqueeze(2))
        d_weights = from_context.squeeze(2)
        if d_attention is not None:
            d_weights = d_weights + d_attention
        inner = (attention * d_weights).sum(dim=1, keepdim=True)
        d_energies.copy_(attention * (d_weights - inner))
        slope = 1 - self._mixed(query, keys, exact).square()  # [batch, src_len, units]
        total = torch.bmm(d_energies.unsqueeze(1), slope).squeeze(1)
        d_query.copy_(total * score.to(exact))

    def look_finish(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        del src_mask
        exact = d_energies.dtype
        d_keys = torch.zeros_like(keys, dtype=exact)
        d_score = torch.zeros_like(score, dtype=exact)
        for query, d_energy in zip(queries, d_energies, strict=True):
            mixed = self._mixed(query, keys, exact)
            scaled = mixed * d_energy.unsqueeze(2)
            d_score += scaled.sum(dim=(0, 1))
            d_keys += torch.addcmul(d_energy.unsqueeze(2), scaled, mixed, value=-1)
        return (d_keys * score.to(exact)).to(keys.dtype), d_score

    def spread(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        total = torch.bmm(
            attention.permute(1, 2, 0), d_contexts.to(attention.dtype).transpose(0, 1)
        )  # [batch, src_len, trg_len] x [batch, trg_len, states]
        return total.to(d_contexts.dtype)

    def gates(
        self, given: Tensor, from_context: Tensor | None, recurrent: Tensor, exact: Tensor,
        candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        hidden = exact.shape[1]
        now = given.to(exact.dtype)
        if from_context is not None:
            now = now + from_context
        own = recurrent[:, 2 * hidden : 3 * hidden].to(exact.dtype)
        reset_update = torch.sigmoid(now[:, : 2 * hidden] + recurrent[:, : 2 * hidden])
        reset, update = reset_update.chunk(2, dim=1)
        new = torch.tanh(now[:, 2 * hidden :] + reset * own)
        exact.copy_(new + update * (exact - new))
        recurrent[:, : 2 * hidden] = reset_update
        candidate.copy_(new)
        state.copy_(exact)

    def gates_backward(
        self, d_state: Tensor, carried: Tensor, product: Tensor, recurrent: Tensor,
        candidate: Tensor, before: Tensor, d_given: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        hidden, exact = carried.shape[1], carried.dtype
        gradient = carried + d_state + product
        reset, update, own = recurrent[:, : 3 * hidden].to(exact).chunk(3, dim=1)
        new, old = candidate.to(exact), before.to(exact)
        d_candidate = gradient * (1 - update) * (1 - new * new)
        d_reset = d_candidate * own * reset * (1 - reset)
        d_update = gradient * (old - new) * update * (1 - update)
        carried.copy_(gradient * update)
        d_given.copy_(torch.cat([d_reset, d_update, d_candidate], dim=1))
        d_recurrent[:, : 3 * hidden] = torch.cat([d_reset, d_update, d_candidate * reset], dim=1)

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        ids = reference.unsqueeze(1)
        counts = (ids != PAD).to(bias.dtype)
        log_probs = torch.log_softmax(logits + bias, dim=1)
        losses, evens = -log_probs.gather(1, ids).squeeze(1), -log_probs.mean(dim=1)
        # p - target, where the target has 1 - e more on the reference.
        gradient = log_probs.exp_().sub_(label_smoothing / len(bias))
        gradient.scatter_(1, ids, gradient.gather(1, ids) - (1 - label_smoothing))
        logits.copy_(gradient.mul_(counts))
        return losses * counts.squeeze(1), evens * counts.squeeze(1)

    def _mixed(self, query: Tensor, keys: Tensor, exact: torch.dtype) -> Tensor:
        return torch.tanh(keys.to(exact) + query.to(exact).unsqueeze(1))


@dataclass(frozen=True)
class OnTriton:
    """The operations in Triton, which must be installed; the sizes change the speed only.

    Attributes:
        tile: numbers that a program of the attention holds of `[src_len, units]` at once; one
            of the output layer holds half of it of a token's scores.
        warps: of 32 threads, in each program of the attention.
    """

    tile: int = 4096
    warps: int = 4

    def look(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        (batch, src_len, units), width = keys.shape, encoder_states.shape[2]
        block = self._source_block(src_len)
        self._of("look")[(batch,)](
            query, keys, encoder_states, score, src_mask.view(torch.uint8), attention, context,
            query.stride(0), src_len, units, width,
            BLOCK_S=block, BLOCK_U=self._columns(block, units),
            BLOCK_D=self._columns(block, width), num_warps=self.warps,
        )  # fmt: skip

    def look_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        (batch, src_len, units), width = keys.shape, encoder_states.shape[2]
        block = self._source_block(src_len)
        self._of("look_backward")[(batch,)](
            d_context, attention if d_attention is None else d_attention, attention, query, keys,
            encoder_states, score, src_mask.view(torch.uint8), d_energies, d_query,
            0 if d_attention is None else d_attention.stride(0), query.stride(0),
            d_query.stride(0), src_len, units, width,
            WITH_ATTENTION=d_attention is not None, BLOCK_S=block,
            BLOCK_U=self._columns(block, units), BLOCK_D=self._columns(block, width),
            num_warps=self.warps,
        )  # fmt: skip

    def look_finish(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, src_len, units = keys.shape
        block = self._source_block(src_len)
        columns = self._columns(block, units, share=2)  # holds two sums
        d_keys = torch.empty_like(keys)
        d_scores = torch.empty_like(keys[:, 0], dtype=torch.float32)
        self._of("look_finish")[(batch, _pieces(units, columns))](
            queries, d_energies, keys, score, src_mask.view(torch.uint8), d_keys, d_scores,
            queries.stride(0), queries.stride(1), len(queries), batch, src_len, units,
            BLOCK_S=block, BLOCK_U=columns, num_warps=self.warps,
        )  # fmt: skip
        return d_keys, d_scores.sum(dim=0)

    def spread(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        (steps, batch, src_len), width = attention.shape, d_contexts.shape[2]
        block = self._source_block(src_len)
        columns = self._columns(block, width)
        total = d_contexts.new_empty(batch, src_len, width)
        self._of("spread")[(batch, _pieces(width, columns))](
            attention, d_contexts, total, steps, batch, src_len, width,
            BLOCK_S=block, BLOCK_D=columns, num_warps=self.warps,
        )  # fmt: skip
        return total

    def gates(
        self, given: Tensor, from_context: Tensor | None, recurrent: Tensor, exact: Tensor,
        candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        batch, hidden = exact.shape
        columns = min(1024, _power_of_two(hidden))
        self._of("gates")[(batch, _pieces(hidden, columns))](
            given, given if from_context is None else from_context, recurrent, exact, candidate,
            state, given.stride(0), recurrent.stride(0), hidden,
            WITH_CONTEXT=from_context is not None, BLOCK=columns, num_warps=4,
        )  # fmt: skip

    def gates_backward(
        self, d_state: Tensor, carried: Tensor, product: Tensor, recurrent: Tensor,
        candidate: Tensor, before: Tensor, d_given: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        batch, hidden = carried.shape
        columns = min(1024, _power_of_two(hidden))
        self._of("gates_backward")[(batch, _pieces(hidden, columns))](
            d_state, carried, product, recurrent, candidate, before, d_given, d_recurrent,
            d_state.stride(0), recurrent.stride(0), d_recurrent.stride(0), hidden,
            BLOCK=columns, num_warps=4,
        )  # fmt: skip

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        rows, vocab = logits.shape
        losses, evens = bias.new_empty(rows), bias.new_empty(rows)
        self._of("cross_entropy")[(rows,)](
            logits, bias, reference, losses, evens, label_smoothing, vocab, PAD=PAD,
            BLOCK=min(self.tile // 2, _power_of_two(vocab)), num_warps=8,
        )  # fmt: skip
        return losses, evens

    def _of(self, name: str) -> Any:
        """The kernel of that name, to be launched as `kernel[grid](...)`."""
        from nmt.model.fast import triton_kernels

        return getattr(triton_kernels, name)

    def _source_block(self, src_len: int) -> int:
        return max(8, _power_of_two(src_len))  # fewer would not be faster, only compiled anew

    def _columns(self, rows: int, width: int, share: int = 1) -> int:
        """Columns of a tile of so many rows."""
        return max(16, min(_power_of_two(width), self.tile // share // rows))


PLAIN: Kernels = _Plain()


def why_not_triton(tensor: Tensor, src_len: int = 0) -> str | None:
    """Why the Triton kernels can't run on tensors like this one; None if they can."""
    if not tensor.is_cuda:
        return f"the device is {tensor.device.type}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        return f"{tensor.dtype} is not a type for them"
    if src_len > _LONGEST:
        return f"a source of {src_len} tokens is longer than {_LONGEST}"
    return _trial(tensor.device)


@functools.cache
def _trial(device: torch.device) -> str | None:
    """Launch the smallest kernel: Triton may be there and lack a C compiler, or the GPU be old.

    Found out once, before training: not after an hour, at a kernel that is needed then.
    """
    blank = torch.zeros(1, 3, device=device)
    try:
        with torch.cuda.device(device):
            OnTriton().gates(blank, None, blank, blank[:, :1], blank[:, :1], blank[:, :1])
            torch.cuda.synchronize()
    except Exception as error:  # of Triton, of what it calls, or of the driver
        return f"triton fails here: {type(error).__name__}: {str(error).strip()[:200]}"
    return None


def available(tensor: Tensor, src_len: int = 0) -> bool:
    """Whether the Triton kernels can run on tensors like this one."""
    return why_not_triton(tensor, src_len) is None


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not smaller."""
    return 1 << (number - 1).bit_length()


def _pieces(whole: int, piece: int) -> int:
    return -(-whole // piece)
