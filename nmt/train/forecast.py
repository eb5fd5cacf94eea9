"""Before the first update: how long an epoch will take, and what it will need."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt.data.batches import Blocks, Lengths, attention_cells, target_tokens

_TIMED = 3  # blocks


@dataclass(frozen=True)
class Forecast:
    """What a training is expected to need.

    Attributes:
        seconds_per_epoch: of gradients alone: without what the optimizer does with them (a few
            per cent), validations and saves.
        memory: bytes: the most that PyTorch took on a GPU, or this process on a CPU,
            with the largest block of the epoch.
        disk: bytes that all checkpoints kept will take at most.
        free_disk: bytes free where they go.
    """

    seconds_per_epoch: float
    memory: int
    disk: int
    free_disk: int

    def record(self) -> dict[str, Any]:
        """For the journal."""
        return {**asdict(self), "seconds_per_epoch": round(self.seconds_per_epoch, 1)}

    def text(self, epochs: float, most_seconds: float) -> str:
        """One line for the user: so many epochs to go, but no longer than that."""
        seconds = min(self.seconds_per_epoch * epochs, most_seconds)
        return (
            f"forecast: {_duration(self.seconds_per_epoch)} an epoch, at most "
            f"{_duration(seconds)} to go, validations not counted; "
            f"memory {_size(self.memory)}, checkpoints {_size(self.disk)}"
        )

    def warning(self) -> str | None:
        """Said if the disk is too small for what will be written."""
        if self.disk <= self.free_disk:
            return None
        return (
            f"the disk has {_size(self.free_disk)} free, checkpoints need up to {_size(self.disk)}"
        )


def make_forecast(
    compute: Callable[[Blocks], object],
    plan: list[Blocks],
    lengths: Lengths,
    model: torch.nn.Module,
    folder: Path,
    copies: int,
) -> Forecast:
    """Measure a few blocks of an epoch, the largest one first.

    Args:
        compute: makes the gradient of blocks; may run out of memory and learn from it.
        plan: batches of an epoch.
        lengths: of all sentences, source and target, `[sentences]` each.
        model: the network.
        folder: where checkpoints go.
        copies: of tensors of the size of the weights in all checkpoints there are at most.
    """
    device = next(model.parameters()).device
    blocks = [block for batch in plan for block in batch]
    sizes = [attention_cells(lengths, block) for block in blocks]
    # A second block is computed beside the gradients of the first; on a GPU it is recorded too.
    again = 2 if device.type == "cuda" else min(2, max(map(len, plan)))
    compute([blocks[int(np.argmax(sizes))]] * again)
    few = np.linspace(0, len(blocks) - 1, min(_TIMED, len(blocks))).astype(int)
    timed = [blocks[i] for i in few]
    if device.type == "cuda":  # a kernel is compiled when it comes first, and recorded next
        for block in timed * 2:
            compute([block])
    synchronize(device)
    began = time.monotonic()
    for block in timed:
        compute([block])
    synchronize(device)
    per_token = (time.monotonic() - began) / sum(target_tokens(lengths, block) for block in timed)
    # Blocks are in random order, so the first few are a sample.
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Forecast(
        seconds_per_epoch=per_token * (int(lengths[1].sum()) + len(lengths[1])),
        memory=_memory(device),
        disk=copies * weights,
        free_disk=shutil.disk_usage(folder).free,
    )


def synchronize(device: torch.device) -> None:
    """Wait for a GPU: it computes on while the clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(device: torch.device) -> int:
    """Most bytes in use so far: of the GPU's memory, or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return peak_rss()


def peak_rss() -> int:
    """Most memory this process has held, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 10 * 2**30 else f"{count / 2**30:,.0f} GiB"
