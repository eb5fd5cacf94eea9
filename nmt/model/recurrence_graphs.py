"""The GPU's time loop recorded as CUDA graphs: one launch for all steps of a batch.

A graph replays the same launches on the same addresses, so batches are copied into buffers
of a few sizes (*buckets*), padded with sentences that nothing is learned from. Whether the
launches saved are worth the copies and the padding depends on the batch: `scripts/bench.py
gpu` times both. `nmt train` does not use this.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Optional, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.model.kernels import Kernels
from nmt.model.recurrence_cuda import Inputs, as_given, run_backward, run_forward

T = TypeVar("T")
_OF_WEIGHTS = ("weight", "bias", "context_weight", "score")


class Graphs:
    """The recurrence, recorded at the first batch of each bucket.

    Weights are read where they lie; one that moves gets new buckets.

    Args:
        kernels: which to launch.
        most: buckets kept, the least recently used go first; each holds all that a batch
            of its size needs between forward and backward.
        multiples: that batch, source and target lengths are rounded up to.
    """

    def __init__(
        self, kernels: Kernels, most: int = 24, multiples: tuple[int, int, int] = (64, 8, 4)
    ) -> None:
        self.kernels, self.most, self.multiples = kernels, most, multiples
        self.buckets: OrderedDict[tuple[Any, ...], _Bucket] = OrderedDict()

    def recurrence(self, *tensors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """As `recurrence_cuda.recurrence`.

        Backward must come before the next forward of the same bucket, and only once.
        """
        outputs: tuple[Tensor, Tensor, Tensor] = _Replayed.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return outputs

    def bucket(self, inputs: Inputs) -> _Bucket:
        """The bucket for inputs, recorded if it is new."""
        batch, steps, _ = inputs.word_gates.shape
        src_len = inputs.keys.shape[1] if inputs.keys is not None else 0
        rounded = tuple(
            -(-size // multiple) * multiple
            for size, multiple in zip((batch, src_len, steps), self.multiples, strict=True)
        )
        weights = (getattr(inputs, name) for name in _OF_WEIGHTS)
        places = tuple(0 if weight is None else weight.data_ptr() for weight in weights)
        key = (*rounded, *places, inputs.word_gates.dtype)
        if key not in self.buckets:
            while len(self.buckets) >= self.most:
                self.buckets.popitem(last=False)
            self.buckets[key] = _Bucket(inputs, rounded, self.kernels)
        self.buckets.move_to_end(key)
        return self.buckets[key]


class _Bucket:
    """Buffers of one size, and the two loops recorded on them."""

    def __init__(self, like: Inputs, sizes: tuple[int, ...], kernels: Kernels) -> None:
        batch, src_len, steps = sizes
        self.generation = 0

        def blank(tensor: Tensor | None, *lengths: int) -> Tensor | None:
            if tensor is None:
                return None
            return tensor.new_zeros(*lengths, *tensor.shape[len(lengths) :])

        given = blank(like.word_gates, batch, steps)
        first = blank(like.first_state, batch)
        assert given is not None
        assert first is not None
        self.inputs = Inputs(
            given, first, like.weight.detach(), like.bias.detach(),
            _detached(like.context_weight), _detached(like.score),
            blank(like.keys, batch, src_len), blank(like.encoder_states, batch, src_len),
            blank(like.src_mask, batch, src_len),
        )  # fmt: skip
        if self.inputs.src_mask is not None:
            self.inputs.src_mask[:, 0] = True
        hidden = first.shape[1]
        self.d_states = given.new_zeros(batch, steps, hidden)
        self.d_contexts = self.d_attention = None
        if like.encoder_states is not None:
            self.d_contexts = given.new_zeros(batch, steps, like.encoder_states.shape[2])
            self.d_attention = torch.zeros(batch, steps, src_len, device=given.device)
        device = given.device
        self.forward, self.kept = _record(lambda: run_forward(self.inputs.cast(), kernels), device)
        self.backward, self.gradients = _record(
            lambda: run_backward(
                self.inputs.cast(), self.kept, self.d_states, self.d_contexts, self.d_attention,
                kernels,
            ),
            device,
        )  # fmt: skip

    def load(self, inputs: Inputs) -> None:
        """Copy a batch in; what is left over becomes sentences of one token and zeros.

        Old numbers must not stay there: were one of them NaN, no zero gradient would stop it.
        """
        for field in fields(Inputs):
            buffer, tensor = getattr(self.inputs, field.name), getattr(inputs, field.name)
            if tensor is not None and field.name not in _OF_WEIGHTS:
                _fill(buffer, tensor)
        if self.inputs.src_mask is not None:
            self.inputs.src_mask[len(inputs.word_gates) :, 0] = True


class _Replayed(torch.autograd.Function):
    """The recorded loop and its backward as one operation."""

    @staticmethod
    def forward(ctx: Any, graphs: Graphs, *tensors: Optional[Tensor]) -> tuple[Tensor, ...]:  # noqa: UP045
        inputs = Inputs(*tensors)  # type: ignore[arg-type]
        with as_given(inputs.word_gates):
            bucket = graphs.bucket(inputs)
            bucket.load(inputs)
            bucket.forward()
        bucket.generation += 1
        ctx.bucket, ctx.generation = bucket, bucket.generation
        ctx.shapes = [
            None if tensor is None else (tensor.shape, tensor.dtype) for tensor in tensors
        ]
        ctx.set_materialize_grads(False)
        batch, steps, _ = inputs.word_gates.shape
        src_len = inputs.keys.shape[1] if inputs.keys is not None else 0
        states = bucket.kept.states[1 : steps + 1, :batch].transpose(0, 1)
        contexts = bucket.kept.contexts[:steps, :batch].transpose(0, 1)
        attention = bucket.kept.attention[:steps, :batch, :src_len].transpose(0, 1)
        # The buffers belong to the next batch.
        return states.clone(), contexts.clone(), attention.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Optional[Tensor]) -> tuple[Optional[Tensor], ...]:  # noqa: UP045
        bucket = ctx.bucket
        assert bucket.generation == ctx.generation, "another batch has been through this bucket"
        bucket.generation += 1
        buffers = (bucket.d_states, bucket.d_contexts, bucket.d_attention)
        for buffer, gradient in zip(buffers, given, strict=True):
            if buffer is not None:
                _fill(buffer, gradient)
        with as_given(bucket.d_states):
            bucket.backward()
        gradients: list[Tensor | None] = []
        for gradient, like in zip(bucket.gradients, ctx.shapes, strict=True):
            if gradient is None or like is None:
                gradients.append(None)
                continue
            shape, dtype = like
            own = gradient[tuple(slice(length) for length in shape)]
            gradients.append(own.to(dtype, copy=True).contiguous())
        return None, *gradients


def _record(function: Callable[[], T], device: torch.device) -> tuple[Callable[[], None], T]:
    """A function's launches, to be replayed; and its result, which each replay writes anew.

    On a CPU the function runs again instead, its results copied to where they were.
    """
    if device.type != "cuda":
        result = function()
        return lambda: _copy_into(result, function()), result
    # Kernels are compiled and libraries set up before recording, which allows neither.
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        function()
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on, the one that pins memory for the next batch for instance.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result


def _copy_into(old: Any, new: Any) -> None:
    pairs = (
        zip(old, new, strict=True)
        if isinstance(old, tuple)
        else ((getattr(old, f.name), getattr(new, f.name)) for f in fields(old))
    )
    for buffer, tensor in pairs:
        if buffer is not None:
            buffer.copy_(tensor)


def _fill(buffer: Tensor, tensor: Tensor | None) -> None:
    """Copy into the beginning of each axis; zero elsewhere."""
    buffer.zero_()
    if tensor is not None:
        buffer[tuple(slice(length) for length in tensor.shape)].copy_(tensor)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
