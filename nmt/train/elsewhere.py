"""A function computed in other processes, for the sake of the one that launches updates.

A thread beside it is no help where a function takes many small steps: each holds the lock of
Python's interpreter, and the launching waits for it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from nmt.errors import NmtError
from nmt.runtime import end_with_the_parent

_function: Callable[..., Any] | None = None  # of a helper process


class Elsewhere:
    """Calls a function in one of some processes and waits for it; for use from threads.

    Args:
        function: given to each process once, pickled.
        processes: how many.
    """

    def __init__(self, function: Callable[..., Any], processes: int) -> None:
        self._pool = ProcessPoolExecutor(
            processes,
            multiprocessing.get_context("spawn"),  # a GPU's driver does not outlive a fork
            initializer=_begin,
            initargs=(function,),
        )

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives.

        Raises:
            NmtError: a process was killed.
        """
        try:
            return self._pool.submit(_call, *arguments).result()
        except BrokenProcessPool as error:
            raise NmtError(
                "a helper process of the training was killed, for want of memory most likely",
                "run the same command again: it goes on from the last checkpoint",
            ) from error

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _begin(function: Callable[..., Any]) -> None:
    global _function
    # Ctrl-C reaches every process of a terminal, and the training still saves.
    end_with_the_parent(asked=False)
    _function = function


def _call(*arguments: Any) -> Any:
    assert _function is not None
    return _function(*arguments)
