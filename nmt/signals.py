"""Stop requests: Ctrl-C, SIGTERM and hangup."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)


class Stop:
    """Set once the user or the machine asks the program to end (Ctrl-C, SIGTERM, hangup)."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Within, the first Ctrl-C, SIGTERM or hangup only sets the flag; a second interrupts.

    A hangup that is ignored already (nohup) stays ignored.
    """
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number
        logger.info("stopping: saving first (Ctrl-C again to stop without)")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
