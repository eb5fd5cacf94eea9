"""Translate the lines of concurrent requests together, in one worker thread.

A batch takes lines from all waiting jobs in turn, so a short job does not wait for the end of a
long one. A long line is translated in several searches; short lines are translated between them.
The search is independent of the batch: each line has the translation that ``nmt translate``
gives it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from nmt.serve.metrics import Metrics
from nmt.translate.types import Translation

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

MAX_LINES = 64  # of a batch
_MAX_CHARACTERS = 4096  # of a batch, unless one line is longer
_SHORT = 512  # characters of a line that is translated between the searches of longer ones
_WAIT = 0.005  # seconds that a batch waits for further requests of concurrent clients
_MAX_WAIT = 0.03  # if requests continue to arrive


class Engine(Protocol):
    """The part of `Translator` that a batcher calls.

    Attributes:
        after_batch: called after each search of several in one call of `translate`.
    """

    after_batch: Callable[[], None] | None

    def translate(self, lines: list[str], batch_size: int, n_best: int) -> list[Translation]:
        """Return one translation per line, in order."""


class QueueFullError(Exception):
    """The queue has no space, or the server stops."""


@dataclass(eq=False)
class Job(Generic[Value]):
    """The lines of one request.

    Attributes:
        lines: to translate.
        n_best: candidates per line.
        render: called in the worker thread with each translation.
        future: set when all lines are translated.
        values: results of `render`, in the order of `lines`.
        begun: number of lines in batches so far.
    """

    lines: list[str]
    n_best: int
    render: Callable[[Translation], Value]
    future: asyncio.Future[list[Value]]
    values: list[Value] = field(default_factory=list)
    begun: int = 0

    @property
    def waiting(self) -> int:
        """Number of lines not in a batch yet."""
        return len(self.lines) - self.begun

    @cached_property
    def characters(self) -> int:
        """Number of characters of all lines."""
        return sum(map(len, self.lines))

    def finish(self, error: Exception | None = None) -> None:
        """Set the future; from any thread, and at most once."""

        def set_future() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(self.values)
            else:
                self.future.set_exception(error)

        self.future.get_loop().call_soon_threadsafe(set_future)


Batch = list[tuple[Job[Any], list[str]]]


class Batcher:
    """A queue of jobs and the thread that translates them.

    Args:
        engine: the translator; called from the worker thread only.
        metrics: receives the batch sizes.
        max_lines: lines waiting at most; beyond it `translate` raises.
        max_characters: characters waiting at most.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        max_lines: int = 4096,
        max_characters: int = 1 << 20,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._max_lines = max_lines
        self._max_characters = max_characters
        self._jobs: deque[Job[Any]] = deque()
        self._changed = threading.Condition()
        self._lines = 0  # of the jobs in the queue
        self._characters = 0
        self._stopped = False
        self._concurrency = 1  # jobs in the last batch
        self._is_interleaved = False
        self._current: list[Job[Any]] = []  # jobs of the batch in progress
        self._thread = threading.Thread(target=self._work, name="translate", daemon=True)
        metrics.queue = self.waiting_lines

    def start(self) -> None:
        """Start the worker thread."""
        self._engine.after_batch = self._interleave
        self._thread.start()

    def stop(self, wait: float = 0.0) -> None:
        """Refuse the waiting jobs and all later ones; the batch in progress is finished.

        Args:
            wait: seconds to wait for the end of the thread.
        """
        with self._changed:
            self._stopped = True
            for job in self._jobs:
                job.finish(QueueFullError())
            self._jobs.clear()
            self._changed.notify_all()
        if wait:
            self._thread.join(wait)

    def waiting_lines(self) -> int:
        """Return the number of lines not in a batch yet."""
        with self._changed:
            return sum(job.waiting for job in self._jobs)

    async def translate(
        self, lines: Sequence[str], n_best: int, render: Callable[[Translation], Value]
    ) -> list[Value]:
        """Translate lines with those of other requests.

        If the calling task is cancelled, lines not in a batch yet are dropped.

        Args:
            lines: any number, each without line breaks.
            n_best: candidates per line.
            render: turns a translation into the value returned; called in the worker thread.

        Raises:
            QueueFullError: too many lines are waiting, or the server stops.
        """
        if not lines:
            return []
        future: asyncio.Future[list[Value]] = asyncio.get_running_loop().create_future()
        job = Job(list(lines), n_best, render, future)
        with self._changed:
            if self._stopped or not self._has_space(job):
                raise QueueFullError
            self._enqueue(job)
            self._changed.notify_all()
        return await future

    def _has_space(self, job: Job[Any]) -> bool:
        """Whether a job fits into the queue; an empty queue takes any."""
        return not self._jobs or (
            self._lines + len(job.lines) <= self._max_lines
            and self._characters + job.characters <= self._max_characters
        )

    def _enqueue(self, job: Job[Any]) -> None:
        self._jobs.append(job)
        self._lines += len(job.lines)
        self._characters += job.characters

    def _dequeue(self, job: Job[Any]) -> None:
        self._jobs.remove(job)
        self._lines -= len(job.lines)
        self._characters -= job.characters

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
            self._collect()
            with self._changed:
                batch = self._next_batch()
            if batch:
                self._concurrency = len(batch)
                self._current = [job for job, _ in batch]
                self._translate(batch)
                self._current = []

    def _interleave(self) -> None:
        """Translate a batch of short lines between the searches of the batch in progress."""
        if self._is_interleaved:
            return
        with self._changed:
            batch = self._next_batch(max_characters=_SHORT)
        if batch:
            self._is_interleaved = True
            self._translate(batch)
            self._is_interleaved = False

    def _collect(self) -> None:
        """Wait for as many jobs as the last batch had, while further jobs arrive.

        A single client never waits.
        """
        deadline = time.monotonic() + _MAX_WAIT
        count = 0
        while count < len(self._jobs) < self._concurrency and time.monotonic() < deadline:
            count = len(self._jobs)
            time.sleep(_WAIT)

    def _next_batch(self, max_characters: int | None = None) -> Batch:
        """Take lines from the waiting jobs in turn, each with an equal share.

        Args:
            max_characters: of a line; jobs whose next line is longer are left waiting.
        """
        for job in [job for job in self._jobs if job.future.cancelled()]:
            self._dequeue(job)
        jobs = [
            job
            for job in self._jobs
            if job not in self._current
            and (max_characters is None or len(job.lines[job.begun]) <= max_characters)
        ]
        if not jobs:
            return []
        jobs = [job for job in jobs if job.n_best == jobs[0].n_best][:MAX_LINES]
        share = max(1, MAX_LINES // len(jobs))
        batch: Batch = []
        characters = 0
        for job in jobs:
            lines: list[str] = []
            for line in job.lines[job.begun : job.begun + share]:
                if characters and characters + len(line) > (max_characters or _MAX_CHARACTERS):
                    break
                lines.append(line)
                characters += len(line)
            if lines:
                batch.append((job, lines))
                job.begun += len(lines)
        # Jobs with further lines are moved to the end of the queue.
        for job, _ in batch:
            self._dequeue(job)
            if job.waiting:
                self._enqueue(job)
        return batch

    def _translate(self, batch: Batch) -> None:
        """Translate a batch; if it fails, each job alone, so that one job fails only."""
        lines = [line for _, section in batch for line in section]
        self._metrics.batches.observe(len(lines))
        try:
            translations = iter(self._engine.translate(lines, MAX_LINES, batch[0][0].n_best))
            for job, section in batch:
                job.values += map(job.render, itertools.islice(translations, len(section)))
        except Exception as error:
            if len(batch) > 1:
                for job, section in batch:
                    del job.values[job.begun - len(section) :]
                    self._translate([(job, section)])
                return
            self._fail(batch[0][0], error)
            return
        for job, _ in batch:
            if len(job.values) == len(job.lines):
                job.finish()

    def _fail(self, job: Job[Any], error: Exception) -> None:
        with self._changed:
            if job in self._jobs:
                self._dequeue(job)
        job.finish(error)
