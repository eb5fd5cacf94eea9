"""Stop requests: Ctrl-C, SIGTERM and hangup."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

logger = logging.getLogger(__name__)

Handler = Callable[[int, "FrameType | None"], None]


class Stop:
    """Whether the user or the system has requested a stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Context manager in which the first SIGINT, SIGTERM or SIGHUP only sets a flag.

    The second one raises `KeyboardInterrupt`.
    """
    stop = Stop()

    def request_stop(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number
        logger.info("stopping: saving first (Ctrl-C again to stop without)")

    with _handling(request_stop, ["SIGINT", "SIGTERM", "SIGHUP"]):
        yield stop


@contextlib.contextmanager
def interrupting_on_signals() -> Iterator[None]:
    """Context manager in which SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does.

    Temporary files are removed by `finally` clauses, which the default handlers would skip.
    """
    process = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)  # a forked worker ends at once
        os.kill(os.getpid(), number)

    with _handling(interrupt, ["SIGTERM", "SIGHUP"]):
        yield


@contextlib.contextmanager
def _handling(handler: Handler, names: list[str]) -> Iterator[None]:
    """Context manager that installs a handler. An ignored signal (nohup: SIGHUP) stays ignored."""
    known = [getattr(signal, name) for name in names if hasattr(signal, name)]  # no SIGHUP: Windows
    numbers = [n for n in known if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)
