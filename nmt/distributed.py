"""Distributed training: the process group and its collectives."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from nmt.errors import NmtError

if TYPE_CHECKING:
    import torch
from nmt.device import choose_device

_MEET_SECONDS = 30  # for all workers to find one another
_WAIT_MINUTES = 30  # for one of them to be done with what the others wait for


@dataclass(frozen=True)
class Workers:
    """The processes that train one network together; mostly there is just this one.

    What they agree on travels between CPUs (gloo), so that no GPU has to wait for it; tensors
    travel from where they are.

    Attributes:
        rank: of this one, from 0. Rank 0 alone writes files.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all workers, the same on all of them."""
        return self._reduce(values, "MAX")

    def smallest(self, values: Sequence[float]) -> list[float]:
        """The smallest of each value over all workers, the same on all of them."""
        return self._reduce(values, "MIN")

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all workers, the same on all of them."""
        return self._reduce(values, "SUM")

    def _reduce(self, values: Sequence[float], how: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=getattr(dist.ReduceOp, how))
        agreed: list[float] = tensor.tolist()
        return agreed

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace every tensor by its sum over all workers, where it lies."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        whole = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(whole)
        sums = torch.split(whole, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give everybody the first one's tensors, where they lie."""
        if self.count == 1:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on once all workers have come here."""
        self.total([0.0])

    def share(self, items: Sequence[str]) -> list[str]:
        """This worker's part of the work; `gather` puts the parts together again."""
        return list(items[self.rank :: self.count])

    def gather(self, part: list[str]) -> list[str]:
        """The results of all workers, in the order of what `share` was given."""
        if self.count == 1:
            return part
        import torch.distributed as dist

        parts: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, part)
        whole = [""] * sum(map(len, parts))
        for rank, items in enumerate(parts):
            whole[rank :: self.count] = items
        return whole


@contextlib.contextmanager
def joining_workers(device_name: str) -> Iterator[tuple[torch.device, Workers]]:
    """Within, this process and its fellows that ``torchrun`` started belong together.

    Yields:
        The device of this worker, and the group; a group of one without ``torchrun``.

    Raises:
        NmtError: as `choose_device`.
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
    meet = timedelta(seconds=_MEET_SECONDS)
    store, rank, size = next(dist.rendezvous("env://", timeout=meet))  # type: ignore[attr-defined]
    # After a restart the store still holds the addresses of the workers before, and gloo would
    # take one of them for a worker of now, and be refused or wait for ever.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=meet)
    # Later on, one may wait long for another that translates or saves.
    dist.distributed_c10d._set_pg_timeout(timedelta(minutes=_WAIT_MINUTES))
    try:
        yield device, Workers(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
