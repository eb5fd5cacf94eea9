"""Launch the Triton kernels, and decide whether they can run."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nmt.model.fast.kernels import REFERENCE, CpuKernels, Kernels
from nmt.symbols import PAD

_MAX_SOURCE = 1024  # source tokens that one program holds


@dataclass(frozen=True)
class TritonKernels:
    """The operations in Triton, which must be installed. The attributes affect speed only.

    Attributes:
        tile: elements of `[src_len, units]` that a program of the attention holds at once; a
            program of `cross_entropy` holds tile / 2 scores of a token.
        warps: warps of 32 threads per program of the attention.
    """

    tile: int = 4096
    warps: int = 4

    def prepare_keys(self, keys: Tensor) -> Tensor:
        return keys

    def attend(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, score: Tensor,
        src_mask: Tensor, attention: Tensor, context: Tensor,
    ) -> None:  # fmt: skip
        (batch, src_len, units), width = keys.shape, encoder_states.shape[2]
        block = self._source_block(src_len)
        self._kernel("attend")[(batch,)](
            query, keys, encoder_states, score, src_mask.view(torch.uint8), attention, context,
            query.stride(0), src_len, units, width,
            BLOCK_S=block, BLOCK_U=self._block_width(block, units),
            BLOCK_D=self._block_width(block, width), num_warps=self.warps,
        )  # fmt: skip

    def attend_backward(
        self, d_context: Tensor, d_attention: Tensor | None, attention: Tensor, query: Tensor,
        keys: Tensor, encoder_states: Tensor, score: Tensor, src_mask: Tensor,
        d_energies: Tensor, d_query: Tensor,
    ) -> None:  # fmt: skip
        (batch, src_len, units), width = keys.shape, encoder_states.shape[2]
        block = self._source_block(src_len)
        self._kernel("attend_backward")[(batch,)](
            d_context, attention if d_attention is None else d_attention, attention, query, keys,
            encoder_states, score, src_mask.view(torch.uint8), d_energies, d_query,
            0 if d_attention is None else d_attention.stride(0), query.stride(0),
            d_query.stride(0), src_len, units, width,
            WITH_ATTENTION=d_attention is not None, BLOCK_S=block,
            BLOCK_U=self._block_width(block, units), BLOCK_D=self._block_width(block, width),
            num_warps=self.warps,
        )  # fmt: skip

    def key_grads(
        self, queries: Tensor, d_energies: Tensor, keys: Tensor, score: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        batch, src_len, units = keys.shape
        block = self._source_block(src_len)
        columns = self._block_width(block, units, share=2)  # holds two sums
        d_keys = torch.empty_like(keys)
        d_scores = torch.empty_like(keys[:, 0], dtype=torch.float32)
        self._kernel("key_grads")[(batch, _ceil_div(units, columns))](
            queries, d_energies, keys, score, src_mask.view(torch.uint8), d_keys, d_scores,
            queries.stride(0), queries.stride(1), len(queries), batch, src_len, units,
            BLOCK_S=block, BLOCK_U=columns, num_warps=self.warps,
        )  # fmt: skip
        return d_keys, d_scores.sum(dim=0)

    def encoder_grads(self, attention: Tensor, d_contexts: Tensor) -> Tensor:
        (steps, batch, src_len), width = attention.shape, d_contexts.shape[2]
        block = self._source_block(src_len)
        columns = self._block_width(block, width)
        total = d_contexts.new_empty(batch, src_len, width)
        self._kernel("encoder_grads")[(batch, _ceil_div(width, columns))](
            attention, d_contexts, total, steps, batch, src_len, width,
            BLOCK_S=block, BLOCK_D=columns, num_warps=self.warps,
        )  # fmt: skip
        return total

    def gates(
        self, input_gates: Tensor, context_gates: Tensor | None, recurrent: Tensor,
        exact_state: Tensor, candidate: Tensor, state: Tensor,
    ) -> None:  # fmt: skip
        batch, hidden = exact_state.shape
        columns = min(1024, _power_of_two(hidden))
        self._kernel("gates")[(batch, _ceil_div(hidden, columns))](
            input_gates, input_gates if context_gates is None else context_gates, recurrent,
            exact_state, candidate, state, input_gates.stride(0), recurrent.stride(0), hidden,
            WITH_CONTEXT=context_gates is not None, BLOCK=columns, num_warps=4,
        )  # fmt: skip

    def gates_backward(
        self, d_state: Tensor, d_carried: Tensor, d_product: Tensor, recurrent: Tensor,
        candidate: Tensor, previous_state: Tensor, d_input_gates: Tensor, d_recurrent: Tensor,
    ) -> None:  # fmt: skip
        batch, hidden = d_carried.shape
        columns = min(1024, _power_of_two(hidden))
        self._kernel("gates_backward")[(batch, _ceil_div(hidden, columns))](
            d_state, d_carried, d_product, recurrent, candidate, previous_state, d_input_gates,
            d_recurrent, d_state.stride(0), recurrent.stride(0), d_recurrent.stride(0), hidden,
            BLOCK=columns, num_warps=4,
        )  # fmt: skip

    def cross_entropy(
        self, logits: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        rows, vocab = logits.shape
        losses, uniform_losses = bias.new_empty(rows), bias.new_empty(rows)
        self._kernel("cross_entropy")[(rows,)](
            logits, bias, reference, losses, uniform_losses, label_smoothing, vocab, PAD=PAD,
            BLOCK=min(self.tile // 2, _power_of_two(vocab)), num_warps=8,
        )  # fmt: skip
        return losses, uniform_losses

    def _kernel(self, name: str) -> Any:
        """Return a kernel; launch it as `kernel[grid](...)`."""
        from nmt.model.fast import triton_kernels

        return getattr(triton_kernels, name)

    def _source_block(self, src_len: int) -> int:
        return max(8, _power_of_two(src_len))  # each size is compiled

    def _block_width(self, rows: int, width: int, share: int = 1) -> int:
        """Return the columns of a tile with `rows` rows, a power of two."""
        return max(16, min(_power_of_two(width), self.tile // share // rows))


def why_not_triton(tensor: Tensor, src_len: int = 0) -> str | None:
    """Return why the Triton kernels cannot run on tensors like this one; None if they can."""
    if not tensor.is_cuda:
        return f"the device is {tensor.device.type}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if tensor.dtype not in (torch.float32, torch.bfloat16):
        return f"{tensor.dtype} is not supported by the Triton kernels"
    if src_len > _MAX_SOURCE:
        return f"the source has {src_len} tokens; the Triton kernels hold {_MAX_SOURCE}"
    return _trial(tensor.device)


@functools.cache
def _trial(device: torch.device) -> str | None:
    """Launch one kernel and return the failure, if any; once per process and device.

    Triton may be installed without a C compiler, or the GPU may be too old.
    """
    blank = torch.zeros(1, 3, device=device)
    try:
        with torch.cuda.device(device):
            TritonKernels().gates(blank, None, blank, blank[:, :1], blank[:, :1], blank[:, :1])
            torch.cuda.synchronize()
    except Exception as error:  # from Triton, its compiler or the driver
        return f"a Triton kernel failed: {type(error).__name__}: {str(error).strip()[:200]}"
    return None


def triton_available(tensor: Tensor, src_len: int = 0) -> bool:
    """Whether the Triton kernels can run on tensors like this one."""
    return why_not_triton(tensor, src_len) is None


def _power_of_two(number: int) -> int:
    """Return the smallest power of two >= `number`."""
    return 1 << (number - 1).bit_length()


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def select_kernels(tensor: Tensor, src_len: int = 0) -> Kernels:
    """Return the fastest kernels that run on tensors like this one."""
    if tensor.device.type == "cpu":
        return CpuKernels()
    return TritonKernels() if triton_available(tensor, src_len) else REFERENCE


def describe_kernels(device: torch.device) -> str:
    """Return which kernels run on a device, for the log."""
    reason = why_not_triton(torch.empty(0, device=device))
    return "Triton kernels" if reason is None else f"PyTorch kernels ({reason})"
