"""Capture and replay of updates as CUDA graphs.

Launching the kernels of an update takes the host longer than computing takes the GPU, unless
the batch is large: each time step launches eight kernels of a few microseconds. A CUDA graph
replays the same launches on the same addresses with one call. Therefore a batch is copied into
buffers of one of few sizes (a *bucket*, with masked padding), and everything from the embeddings
to the gradients of all weights is captured once per bucket.

On a CPU the function runs again instead of being replayed, for the tests.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nmt.data.batches import Batch
from nmt.device import is_out_of_memory
from nmt.errors import NmtError

NO_CUDA_GRAPHS = "NMT_NO_CUDA_GRAPHS"  # environment variable that disables capturing

# Bucket sizes between a power of two and the next.
_ROW_SIZES, _LENGTH_SIZES = 8, 4
# Batches with at least so many target cells use twice as many sizes, for less padding. Blocks
# of the default size lie clearly above or below.
_LARGE_CELLS = 3584


def uses_cuda_graphs(device: torch.device) -> bool:
    """Whether updates on this device are captured and replayed."""
    return device.type == "cuda" and not os.environ.get(NO_CUDA_GRAPHS)


class GraphPool:
    """Captures functions as CUDA graphs that share one memory pool.

    A captured function must read and write the same tensors each time. Results that must outlive
    the next replay are copied, inside the function, into tensors allocated outside.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.reset()

    def reset(self) -> None:
        """Start with a new memory pool. Call after all captured graphs were freed."""
        self._has_graphs = False

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function on the capture stream, so that it is initialised before its capture."""
        if self.device.type != "cuda":
            function()
            return
        with self._on_capture_stream():
            function()

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Capture a function that was warmed up; return a function that replays it.

        Raises:
            NmtError: the driver cannot capture it.
            RuntimeError: out of memory, see `is_out_of_memory`.
        """
        try:
            return self._captured(function)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise _capture_error(error) from error
        torch.cuda.empty_cache()  # cached memory is not released during a capture
        try:
            return self._captured(function)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise _capture_error(error) from error
            raise

    def _captured(self, function: Callable[[], None]) -> Callable[[], None]:
        if self.device.type != "cuda":
            return function
        if not self._has_graphs:  # a pool exists as long as a graph uses it
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with self._on_capture_stream(), _no_garbage_collection():
            # "thread_local": prefetching threads may call CUDA during the capture.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                function()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # a consequence of the first error
                    graph.capture_end()
                raise
            graph.capture_end()
        self._has_graphs = True
        return graph.replay

    @contextlib.contextmanager
    def _on_capture_stream(self) -> Iterator[None]:
        """Context manager: launch on the capture stream, ordered with the current stream."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)


def _capture_error(error: RuntimeError) -> NmtError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return NmtError(
        f"this GPU or its driver cannot capture an update as a CUDA graph: {reason}",
        f"set {NO_CUDA_GRAPHS}=1 in the environment to launch kernels one by one, slower",
    )


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Context manager: disable the GC. Destroying another graph would end the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class CapturedFunction:
    """A function that is launched at the first call, captured at the second, then replayed.

    Args:
        pool: captures it.
        function: reads and writes the same tensors each time.
    """

    def __init__(self, pool: GraphPool, function: Callable[[], None]) -> None:
        self.pool, self.function, self.warmed_up = pool, function, False
        self.replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Run or replay the function."""
        if self.replay is not None:
            self.replay()
        elif self.warmed_up:
            self.replay = self.pool.capture(self.function)
            self.replay()
        else:
            self.pool.warm_up(self.function)
            self.warmed_up = True


class CapturedGradient:
    """Accumulate gradients of batches with one CUDA graph per bucket.

    Launched and replayed buckets give the same bits.

    Args:
        loss: of a batch; returns the smoothed and the plain loss, both summed.
        parameters: of the model; their `grad` is allocated here and must stay in place.
        pool: used for nothing else.
        max_buckets: the least recently used buckets are dropped.

    Attributes:
        gradients: of the parameters, in the same order.
    """

    def __init__(
        self,
        loss: Callable[[Batch], tuple[Tensor, Tensor]],
        parameters: Sequence[nn.Parameter],
        pool: GraphPool,
        max_buckets: int = 512,
    ) -> None:
        self.loss, self.pool, self.max_buckets = loss, pool, max_buckets
        self.parameters = list(parameters)
        self.buckets: OrderedDict[tuple[int, int, int], _Bucket] = OrderedDict()
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def prepare(self, batch: Batch) -> Batch:
        """Pad a batch on the CPU to its bucket, in pinned memory for a GPU."""
        padded, device = pad_to_bucket(batch), self.pool.device
        if device.type != "cuda":
            return padded
        with torch.cuda.device(device):  # not inherited by prefetching threads
            return padded.pinned()

    def accumulate(self, batch: Batch, scale: float) -> Tensor:
        """Add the gradient of a batch's loss.

        Args:
            batch: from `prepare`.
            scale: factor on the summed loss.

        Returns:
            The plain loss, a scalar that the next call may overwrite.
        """
        sizes = (*batch.src.shape, batch.trg_out.shape[1])
        if sizes not in self.buckets:
            while len(self.buckets) >= self.max_buckets:
                self.buckets.popitem(last=False)
            self.buckets[sizes] = _Bucket(batch, self.pool, self._accumulate)
        self.buckets.move_to_end(sizes)
        return self.buckets[sizes].run(batch, scale)

    def zero(self) -> None:
        """Set all gradients to zero."""
        torch._foreach_zero_(self.gradients)

    def reset(self) -> None:
        """Free the memory of all buckets."""
        self.buckets.clear()
        self.pool.reset()

    def _accumulate(self, batch: Batch, scale: Tensor, plain_out: Tensor) -> None:
        smoothed, plain = self.loss(batch)
        plain_out.copy_(plain)
        new = torch.autograd.grad(smoothed * scale, self.parameters, allow_unused=True)
        pairs = [pair for pair in zip(self.gradients, new, strict=True) if pair[1] is not None]
        torch._foreach_add_(*map(list, zip(*pairs, strict=True)))


class _Bucket:
    """Input buffers of one size, and the graph captured on them."""

    def __init__(
        self,
        example: Batch,
        pool: GraphPool,
        accumulate: Callable[[Batch, Tensor, Tensor], None],
    ) -> None:
        self.batch = example.copied(pool.device)
        self.scale, self.plain = (torch.zeros((), device=pool.device) for _ in range(2))
        # No reference cycle: the memory is freed as soon as the bucket is dropped.
        self.accumulate = CapturedFunction(
            pool, functools.partial(accumulate, self.batch, self.scale, self.plain)
        )

    def run(self, batch: Batch, scale: float) -> Tensor:
        """Accumulate the gradient; return the plain loss."""
        self.batch.fill(batch)
        self.scale.fill_(scale)
        self.accumulate()
        return self.plain


def pad_to_bucket(batch: Batch) -> Batch:
    """Pad a batch to the size of its bucket."""
    (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
    return batch.padded_to(*bucket_sizes(rows, src_len, trg_len))


def bucket_sizes(rows: int, src_len: int, trg_len: int) -> tuple[int, int, int]:
    """Return the bucket size for a batch: a compromise between few sizes and little padding.

    Large batches, which keep the GPU busy, are padded less.
    """
    factor = 2 if rows * trg_len >= _LARGE_CELLS else 1
    return (
        _round_up(rows, factor * _ROW_SIZES),
        _round_up(src_len, factor * _LENGTH_SIZES),
        _round_up(trg_len, factor * _LENGTH_SIZES),
    )


def _round_up(number: int, sizes: int) -> int:
    """Round up to one of `sizes` evenly spaced numbers per power of two."""
    step = max(1, (1 << (number.bit_length() - 1)) // sizes)
    return -(-number // step) * step
