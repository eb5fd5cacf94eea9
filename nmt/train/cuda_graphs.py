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
import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nmt.data.batches import Batch
from nmt.device import is_out_of_memory
from nmt.errors import NmtError

LAUNCH = "NMT_LAUNCH"  # set in the environment: nothing is recorded

_ROWS, _LENGTHS = 8, 4  # sizes of a bucket from one power of two to the next
# Target tokens from which there are twice as many; blocks of a usual size are not on either side.
_LARGE = 3584


class Recorder:
    """Runs functions that read and write the same tensors each time, and records them.

    All memory that they need in between is shared: what shall last must be copied, within
    them, into tensors from outside.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.forget()

    def forget(self) -> None:
        """Begin anew; to be called when all that was recorded is gone, and its memory with it."""
        self._begun = False

    def run(self, function: Callable[[], None]) -> None:
        """Run without recording, where recording would: it sets up what that can't."""
        if self.device.type != "cuda":
            function()
            return
        with self._alone():
            function()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """What replays the launches of a function that `run` has run before.

        Raises:
            NmtError: the driver refuses.
            RuntimeError: memory is full, as `is_out_of_memory` tells.
        """
        for tried in (False, True):
            try:
                return self._recorded(function)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    raise NmtError(
                        f"this GPU or its driver can't record an update: {reason}",
                        f"set {LAUNCH}=1 in the environment to launch it piece by piece, slower",
                    ) from error
                if tried:
                    raise
            torch.cuda.empty_cache()  # while recording, nothing that is cached is given back
        raise AssertionError

    def _recorded(self, function: Callable[[], None]) -> Callable[[], None]:
        if self.device.type != "cuda":
            return function
        if not self._begun:  # memory for recordings is shared by those that are alive
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with self._alone(), _nothing_collected():
            # Other threads may go on: they gather the next batches.
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                function()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # about what the first error spoiled
                    graph.capture_end()
                raise
            graph.capture_end()
        self._begun = True
        return graph.replay

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Within, launches come after all before and before all after, on their own stream."""
        current = torch.cuda.current_stream(self.device)
        self._beside.wait_stream(current)
        try:
            with torch.cuda.stream(self._beside):
                yield
        finally:
            current.wait_stream(self._beside)


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Within, Python looks for no garbage: a graph in it, destroyed, would end a recording."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Recording:
    """A function that is launched the first time, recorded the second and replayed from then on.

    Args:
        recorder: does it.
        function: reads and writes the same tensors each time.
    """

    def __init__(self, recorder: Recorder, function: Callable[[], None]) -> None:
        self.recorder, self.function, self.seen = recorder, function, False
        self.replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        """Do what the function does."""
        if self.replay is not None:
            self.replay()
        elif self.seen:
            self.replay = self.recorder.record(self.function)
            self.replay()
        else:
            self.recorder.run(self.function)
            self.seen = True


class RecordedGradient:
    """The gradient of a batch's loss, added to that of others.

    A bucket is launched kernel by kernel when it comes first and recorded when it comes
    again. Both give the same bits.

    Args:
        loss: of a batch; returns what is minimised and the plain loss, both summed.
        parameters: of the network; their `grad` is made here and must stay.
        recorder: for the device they are on, and for nothing else.
        most: buckets kept; the least recently used go first.

    Attributes:
        gradients: of the parameters, in their order.
    """

    def __init__(
        self,
        loss: Callable[[Batch], tuple[Tensor, Tensor]],
        parameters: Sequence[nn.Parameter],
        recorder: Recorder,
        most: int = 512,
    ) -> None:
        self.loss, self.recorder, self.most = loss, recorder, most
        self.parameters = list(parameters)
        self.buckets: OrderedDict[tuple[int, int, int], _Bucket] = OrderedDict()
        self.gradients = [torch.zeros_like(parameter) for parameter in parameters]
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient

    def ready(self, batch: Batch) -> Batch:
        """A batch on the CPU as `add` takes it: in its bucket, and pinned if this is for a GPU."""
        widened, device = in_bucket(batch), self.recorder.device
        if device.type != "cuda":
            return widened
        with torch.cuda.device(device):  # which a thread does not know by itself
            return widened.pinned()

    def add(self, batch: Batch, share: float) -> Tensor:
        """Add `share` of the gradient of a batch.

        Args:
            batch: from `ready`.
            share: what the summed loss is multiplied by.

        Returns:
            The plain loss, a scalar that the next call may overwrite.
        """
        (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
        sizes = (rows, src_len, trg_len)
        if sizes not in self.buckets:
            while len(self.buckets) >= self.most:
                self.buckets.popitem(last=False)
            self.buckets[sizes] = _Bucket(batch, self.recorder, self._add)
        self.buckets.move_to_end(sizes)
        return self.buckets[sizes].run(batch, share)

    def clear(self) -> None:
        """Set all gradients to zero."""
        torch._foreach_zero_(self.gradients)

    def forget(self) -> None:
        """Give back the memory of all buckets."""
        self.buckets.clear()
        self.recorder.forget()

    def _add(self, batch: Batch, share: Tensor, plain: Tensor) -> None:
        smoothed, found = self.loss(batch)
        plain.copy_(found)
        added = torch.autograd.grad(smoothed * share, self.parameters, allow_unused=True)
        pairs = [pair for pair in zip(self.gradients, added, strict=True) if pair[1] is not None]
        torch._foreach_add_(*map(list, zip(*pairs, strict=True)))


class _Bucket:
    """Buffers of one size, and what is recorded on them."""

    def __init__(
        self, like: Batch, recorder: Recorder, add: Callable[[Batch, Tensor, Tensor], None]
    ) -> None:
        self.batch = like.copied(recorder.device)
        self.share, self.plain = (torch.zeros((), device=recorder.device) for _ in range(2))
        # Nothing here holds the bucket itself: its memory goes when it is dropped.
        self.add = Recording(recorder, functools.partial(add, self.batch, self.share, self.plain))

    def run(self, batch: Batch, share: float) -> Tensor:
        """Add the gradient; returns the plain loss."""
        self.batch.fill(batch)
        self.share.fill_(share)
        self.add()
        return self.plain


def in_bucket(batch: Batch) -> Batch:
    """A batch with the little padding more that makes it one of few sizes."""
    (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
    return batch.padded_to(*bucket_sizes(rows, src_len, trg_len))


def bucket_sizes(rows: int, src_len: int, trg_len: int) -> tuple[int, int, int]:
    """Sizes of the bucket for a batch: few sizes, and little more padding.

    A large batch keeps the GPU busy and is padded less; what a small one costs is launched once.
    """
    finer = 2 if rows * trg_len >= _LARGE else 1
    return (
        _rounded_up(rows, finer * _ROWS),
        _rounded_up(src_len, finer * _LENGTHS),
        _rounded_up(trg_len, finer * _LENGTHS),
    )


def _rounded_up(number: int, sizes: int) -> int:
    """To one of so many sizes from each power of two to the next, evenly spaced."""
    step = max(1, (1 << (number.bit_length() - 1)) // sizes)
    return -(-number // step) * step
