"""A process pool that maps a function over a stream, in order and with bounded look-ahead."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nmt.device import allowed_cores
from nmt.errors import NmtError

_MIN_ITEMS = 8  # a shorter stream is processed in this process: starting others takes longer

T = TypeVar("T")
R = TypeVar("R")


class Pool:
    """Worker processes for one pass. Use as a context manager.

    Args:
        count: number of processes; None for one per available core, started only for a
            stream of at least `_MIN_ITEMS` items.
    """

    def __init__(self, count: int | None) -> None:
        self.count = allowed_cores() if count is None else count
        self._starts_at_once = count is not None and count > 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield `function(item)` in order; reads only a few items ahead.

        Raises:
            NmtError: a worker process was killed.
        """
        stream = iter(items)
        if self.count < 2:
            yield from map(function, stream)
            return
        if not self._starts_at_once and self._pool is None:
            first = list(itertools.islice(stream, _MIN_ITEMS))
            if len(first) < _MIN_ITEMS:
                yield from map(function, first)
                return
            stream = itertools.chain(first, stream)
        yield from self._map_in_pool(function, stream)

    def _map_in_pool(self, function: Callable[[T], R], stream: Iterator[T]) -> Iterator[R]:
        if self._pool is None:
            # Spawned, not forked: the progress bar has a thread.
            self._pool = ProcessPoolExecutor(
                self.count, multiprocessing.get_context("spawn"), initializer=_exit_with_parent
            )
        pending: deque[Future[R]] = deque()
        try:
            for item in stream:
                pending.append(self._pool.submit(function, item))
                if len(pending) > 3 * self.count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise NmtError(
                "a worker process was killed (probably out of memory)",
                "run again with --workers 1",
            ) from error


def _exit_with_parent() -> None:
    """Make Ctrl-C end a worker at once, and end it when its parent is killed."""
    # Python's handler would wait for SentencePiece's training to return.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
