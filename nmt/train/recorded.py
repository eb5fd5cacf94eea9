"""Launches recorded as CUDA graphs: one call of the driver in place of many hundreds.

What an update launches takes the host longer than the GPU, unless the batch is large: a step
of the time loop alone is eight kernels of a few microseconds. A graph replays the same
launches on the same addresses. So a batch is copied into buffers of one of few sizes (a
*bucket*), with a little more padding, which nothing is learned from; and everything from the
embeddings to the gradients of all weights is recorded once a bucket.

On a CPU running again takes the place of replaying, for the tests.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from nmt.batches import Batch
from nmt.runtime import is_out_of_memory, warn

_ROWS, _LENGTHS = 8, 4  # sizes of a bucket from one power of two to the next


class Recorder:
    """Runs functions that read and write the same tensors each time, and records them.

    All memory that they need in between is shared: what shall last must be copied, within
    them, into tensors from outside.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._refused = device, False
        if device.type == "cuda":
            self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], None]) -> None:
        """Run without recording, where recording would: it sets up what that can't."""
        if self.device.type != "cuda":
            function()
            return
        with self._alone():
            function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """What replays the launches of a function that `run` has run before.

        Where the driver refuses, what launches them one by one again, and a warning.
        """
        if not self._refused:
            try:
                return self._recorded(function)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._refused = True
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                warn(f"nothing is recorded, training is slower for it: {reason}")
        return functools.partial(self.run, function)

    def _recorded(self, function: Callable[[], None]) -> Callable[[], None]:
        if self.device.type != "cuda":
            return function
        graph = torch.cuda.CUDAGraph()
        with self._alone():
            # Other threads may go on: they gather the next batches.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                function()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # the first error is the one to know
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph.replay

    @contextlib.contextmanager
    def _alone(self) -> Any:
        """Within, launches come after all before and before all after, on their own stream."""
        current = torch.cuda.current_stream(self.device)
        self._beside.wait_stream(current)
        with torch.cuda.stream(self._beside):
            yield
        current.wait_stream(self._beside)


class RecordedGradient:
    """The gradient of a batch's loss, added to that of others.

    A bucket is launched kernel by kernel when it comes first and recorded when it comes
    again. Both give the same bits.

    Args:
        loss: of a batch; returns what is minimised and the plain loss, both summed.
        parameters: of the network; their `grad` is made here and must stay.
        recorder: for the device they are on.
        most: buckets kept; the least recently used go first.
    """

    def __init__(
        self,
        loss: Callable[[Batch], tuple[Tensor, Tensor]],
        parameters: Sequence[nn.Parameter],
        recorder: Recorder,
        most: int = 512,
    ) -> None:
        self.loss, self.recorder, self.most = loss, recorder, most
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.buckets: OrderedDict[tuple[int, ...], _Bucket] = OrderedDict()
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def add(self, batch: Batch, share: float) -> tuple[Tensor, int]:
        """Add `share` of the gradient of a batch.

        Args:
            batch: on the CPU.
            share: what the summed loss is multiplied by.

        Returns:
            The plain loss, a scalar that the next call may overwrite; and the target tokens
            computed, padding counted.
        """
        (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
        sizes = bucket_sizes(rows, src_len, trg_len)
        batch = batch.widened(*sizes)
        key = (*sizes, int(batch.alignment is not None))
        if key not in self.buckets:
            while len(self.buckets) >= self.most:
                self.buckets.popitem(last=False)
            self.buckets[key] = _Bucket(batch, self.recorder, self._add)
        self.buckets.move_to_end(key)
        return self.buckets[key].run(batch, share), batch.trg_out.numel()

    def forget(self) -> None:
        """Give back the memory of all buckets."""
        self.buckets.clear()

    def _add(self, batch: Batch, share: Tensor, plain: Tensor) -> None:
        smoothed, found = self.loss(batch)
        plain.copy_(found)
        gradients = torch.autograd.grad(smoothed * share, self.parameters, allow_unused=True)
        pairs = [
            (parameter.grad, gradient)
            for parameter, gradient in zip(self.parameters, gradients, strict=True)
            if gradient is not None
        ]
        torch._foreach_add_(*map(list, zip(*pairs, strict=True)))


class _Bucket:
    """Buffers of one size, and what is recorded on them."""

    def __init__(
        self, like: Batch, recorder: Recorder, add: Callable[[Batch, Tensor, Tensor], None]
    ) -> None:
        device = recorder.device
        self.batch = like.copied(device)
        self.share, self.plain = torch.zeros((), device=device), torch.zeros((), device=device)
        self.recorder, self.seen = recorder, False
        self.replay: Callable[[], None] | None = None
        self.function = lambda: add(self.batch, self.share, self.plain)

    def run(self, batch: Batch, share: float) -> Tensor:
        """Add the gradient; returns the plain loss."""
        for name, tensor in _tensors(batch).items():
            buffer = getattr(self.batch, name)
            if buffer.is_cuda:
                tensor = tensor.pin_memory()
            buffer.copy_(tensor, non_blocking=True)
        self.share.fill_(share)
        if self.replay is not None:
            self.replay()
        elif self.seen:
            self.replay = self.recorder.record(self.function)
            self.replay()
        else:
            self.recorder.run(self.function)
            self.seen = True
        return self.plain


def bucket_sizes(rows: int, src_len: int, trg_len: int) -> tuple[int, int, int]:
    """Sizes of the bucket for a batch: few sizes, and little more padding."""
    return _rounded_up(rows, _ROWS), _rounded_up(src_len, _LENGTHS), _rounded_up(trg_len, _LENGTHS)


def _rounded_up(number: int, sizes: int) -> int:
    """To one of so many sizes from each power of two to the next, evenly spaced."""
    step = max(1, (1 << (number.bit_length() - 1)) // sizes)
    return -(-number // step) * step


def _tensors(batch: Batch) -> dict[str, Tensor]:
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
