"""Distributed training: the process group and its collectives."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nmt.device import choose_device
from nmt.errors import NmtError

if TYPE_CHECKING:
    import torch

_JOIN_SECONDS = 30  # timeout for all workers to connect
_COLLECTIVE_MINUTES = 30  # timeout of a collective: rank 0 may be validating or saving


@dataclass(frozen=True)
class Workers:
    """The processes that train one model together; a single process without ``torchrun``.

    Numbers are reduced on the CPU (gloo), which does not synchronise the GPU. Tensors are
    reduced on their own device.

    Attributes:
        rank: of this process, from 0. Only rank 0 writes files.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise maximum over all workers."""
        return self._reduce(values, "MAX")

    def min(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise minimum over all workers."""
        return self._reduce(values, "MIN")

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise sum over all workers."""
        return self._reduce(values, "SUM")

    def _reduce(self, values: Sequence[float], operation: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=getattr(dist.ReduceOp, operation))
        reduced: list[float] = tensor.tolist()
        return reduced

    def all_reduce(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all workers, in place."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        sums = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view_as(tensor))

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Broadcast rank 0's tensors in place."""
        if self.count == 1:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait until all workers have called this."""
        self.sum([0.0])

    def shard(self, items: Sequence[str]) -> list[str]:
        """Return this worker's part of the items; `gather` restores the order."""
        return list(items[self.rank :: self.count])

    def gather(self, part: list[str]) -> list[str]:
        """Return the results of all workers, in the order of the items given to `shard`."""
        if self.count == 1:
            return part
        import torch.distributed as dist

        parts: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, part)
        gathered = [""] * len([item for items in parts for item in items])
        for rank, items in enumerate(parts):
            gathered[rank :: self.count] = items
        return gathered


@contextlib.contextmanager
def joined_workers(device_name: str) -> Iterator[tuple[torch.device, Workers]]:
    """Context manager that joins the process group of ``torchrun``.

    Yields:
        This worker's device, and the workers; a single worker without ``torchrun``.

    Raises:
        NmtError: the device is unknown or not available.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield choose_device(device_name), Workers()
        return
    import torch
    import torch.distributed as dist

    device = choose_device(device_name)
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise NmtError(
                f"worker {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
                "start no more workers than GPUs: torchrun --nproc-per-node",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=_JOIN_SECONDS)
    store, rank, size = next(dist.rendezvous("env://", timeout=timeout))  # type: ignore[attr-defined]
    # After a restart the store still has the addresses of the previous workers: gloo would
    # connect to one of them and fail or hang.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    dist.distributed_c10d._set_pg_timeout(timedelta(minutes=_COLLECTIVE_MINUTES))
    try:
        yield device, Workers(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
