"""Optimizer updates: launch, collect the result, skip non-finite gradients, roll back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nmt.data.batches import Blocks
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.run.directory import Run
from nmt.run.journal import Window
from nmt.train.gradient import BatchResult, GradientComputer
from nmt.train.optimizer import Optimizer
from nmt.train.state import TrainState

logger = logging.getLogger(__name__)

MAX_SKIPS = 5  # consecutive updates skipped before a rollback
MAX_ROLLBACKS = 3  # before training fails
_ROLLBACK_RATE = 0.5  # factor on the learning rate at each rollback


class RolledBack(Exception):  # noqa: N818 (control flow, not an error)
    """Training returned to its last checkpoint, with a lower learning rate."""


class PendingUpdate:
    """An update in flight; its loss and gradient norm are copied to the CPU asynchronously.

    Args:
        numbers: this worker's summed loss, and the norm of the gradient, `[2]`.
        result: of this worker's part of the batch.
        rate: the learning rate.
    """

    def __init__(self, numbers: Tensor, result: BatchResult, rate: float) -> None:
        self.result, self.rate = result, rate
        self._numbers = numbers.to("cpu", non_blocking=True)  # to pinned memory
        self._ready = None
        if numbers.is_cuda:
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(torch.cuda.current_stream(numbers.device))

    def wait(self) -> tuple[float, float]:
        """Return loss and gradient norm; waits for this update only."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, norm = self._numbers.tolist()
        return loss, norm


class Updater:
    """Performs updates and keeps the training state.

    On a GPU an update is launched before the result of the previous one is known, so the GPU
    never waits for the host. At most one update is pending.

    Args:
        run: restored from at a rollback.
        optimizer: moves the weights.
        gradient: computes gradients.
        state: the initial state, if the run has no checkpoint.
        workers: of this training.
        event: logs an event and writes it to the journal.
        clock: seconds, monotonic.
        asynchronous: whether a launched update is left pending.

    Attributes:
        state: where training stands; replaced at a rollback.
        window: statistics of the updates since the last log record.
        longest: seconds of the longest update.
    """

    def __init__(
        self,
        run: Run,
        optimizer: Optimizer,
        gradient: GradientComputer,
        state: TrainState,
        workers: Workers,
        event: Callable[[str], None],
        clock: Callable[[], float],
        *,
        asynchronous: bool,
    ) -> None:
        self.run, self.optimizer, self.gradient, self.state = run, optimizer, gradient, state
        self.workers, self.event, self.clock = workers, event, clock
        self.asynchronous = asynchronous
        self.window, self.longest = Window(), 0.0
        self.pending: PendingUpdate | None = None
        self._collected_at = 0.0

    @property
    def next_number(self) -> int:
        """Number of the next update, from 1; skipped and pending ones are counted.

        Seeds and learning rates depend on it, so it must not depend on a pending result.
        """
        return self.state.update + self.state.skipped + (self.pending is not None) + 1

    def update(
        self, batch: Blocks, rate: float, upcoming: list[Blocks], *, synchronous: bool
    ) -> None:
        """Perform one update, and collect the result of the previous one.

        Args:
            batch: blocks of all workers.
            rate: the learning rate.
            upcoming: the batches expected next, gathered in advance.
            synchronous: whether to collect the result of this update too.

        Raises:
            RolledBack: too many consecutive gradients were not finite.
        """
        if self.pending is None:
            self._collected_at = self.clock()
        launched = self._launch(batch, rate, upcoming)
        self.collect()  # after a rollback the launched update is discarded
        self.pending = launched
        if synchronous or not self.asynchronous:
            self.collect()

    def _launch(self, batch: Blocks, rate: float, upcoming: list[Blocks]) -> PendingUpdate:
        number = self.next_number
        self.gradient.model.train()
        seed = update_seed(self.run.config.train.seed, number, self.workers.rank)
        result = self.gradient.compute(batch, seed, number)
        norm = self.optimizer(rate, number)
        launched = PendingUpdate(torch.stack([result.loss, norm]), result, rate)
        for ahead, blocks in enumerate(upcoming, start=1):
            self.gradient.prefetch(blocks, number + ahead)
        return launched

    def collect(self) -> None:
        """Wait for the pending update, if there is one, and record its result.

        Raises:
            RolledBack: too many consecutive gradients were not finite.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return
        loss, norm = pending.wait()
        if not math.isfinite(norm):
            self._skip()
            return
        state, result, now = self.state, pending.result, self.clock()
        state.update, state.consecutive_skips = state.update + 1, 0
        state.tokens += result.total_tokens
        seconds, self._collected_at = now - self._collected_at, now
        self.longest = max(self.longest, seconds)
        self.window.add(loss, result.tokens, norm, result.cells, pending.rate, seconds)

    def _skip(self) -> None:
        """Count an update that the optimizer has skipped because of its gradient."""
        state = self.state
        state.skipped += 1
        state.consecutive_skips += 1
        self.event(f"update {state.update + 1}: the gradient is not finite; batch skipped")
        if state.consecutive_skips >= MAX_SKIPS:
            self.roll_back(f"no finite gradient in {MAX_SKIPS} consecutive batches")

    def roll_back(self, reason: str) -> None:
        """Restore the last checkpoint with a lower learning rate.

        Raises:
            RolledBack: always, except
            NmtError: after `MAX_ROLLBACKS` rollbacks.
        """
        failed = self.state
        if failed.rollbacks >= MAX_ROLLBACKS:
            rate = self.run.config.train.learning_rate * failed.rate_scale
            raise NmtError(
                f"update {failed.update + 1}: {reason}, also after {MAX_ROLLBACKS} rollbacks and "
                f"with the learning rate reduced to {failed.rate_scale:g} of its configured value; "
                "the last checkpoint is intact",
                f"start a new run with a lower rate: --set train.learning_rate={rate:.1g}",
            )
        self.restore()
        state = self.state
        state.rate_scale = failed.rate_scale * _ROLLBACK_RATE
        state.rollbacks = failed.rollbacks + 1
        state.skipped = failed.skipped
        self.window, self.pending = Window(), None
        raise RolledBack(
            f"{reason}: rolled back to update {state.update}, learning rate times "
            f"{state.rate_scale:g}"
        )

    def take_window(self) -> Window:
        """Return the statistics since the last call, and start new ones."""
        window, self.window = self.window, Window()
        return window

    def restore(self) -> None:
        """Load the last intact checkpoint, if there is one, and remove incomplete files."""
        restored = self.run.checkpoints.last_good()
        self.workers.barrier()  # all have read before files are removed
        if self.workers.is_main:
            self.run.tidy(0 if restored is None else restored[0].update)
        if restored is not None:
            checkpoint, tensors = restored
            self.state = TrainState.from_checkpoint(checkpoint.state.training)
            self.optimizer.load(tensors, checkpoint.update)


def update_seed(seed: int, number: int, rank: int) -> int:
    """Return the 63-bit random seed of an update on a worker."""
    words = [seed, number, *([rank] if rank else [])]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
