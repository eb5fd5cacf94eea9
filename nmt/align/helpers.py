"""The aligner's work in other processes, for the sake of the one that launches updates.

Threads beside it are no help: aligning takes many small steps, each of which holds the lock of
Python's interpreter, and the launching waits for it.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from nmt.align.aligner import Aligner
from nmt.align.hmm import Floats, Ids, Mask

logger = logging.getLogger(__name__)


class Helpers:
    """Processes that align batches; they end with this object, or with this process.

    If one is killed, what it would have done is done here, and training only gets slower.

    Args:
        path: of what `Aligner.save` wrote.
        count: how many.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._aligner = Aligner.load(path)
        self._idle: SimpleQueue[Connection | None] = SimpleQueue()
        context = multiprocessing.get_context("spawn")  # a GPU's driver does not outlive a fork
        for _ in range(count):
            here, there = context.Pipe()
            context.Process(target=_serve, args=(there, path), daemon=True).start()
            there.close()
            self._idle.put(here)

    def posteriors(self, src: Ids, src_mask: Mask, trg: Ids, trg_mask: Mask) -> Floats:
        """As `Aligner.posteriors`; who calls while all are busy waits for one."""
        helper = self._idle.get()
        try:
            if helper is not None:
                helper.send((src, src_mask, trg, trg_mask))
                found: Floats = helper.recv()
                return found
        except (EOFError, OSError):
            helper = None
            logger.warning(
                "a process that aligned batches has ended; the training does its share itself now"
            )
        except BaseException:
            helper = None  # it may hold an answer that nobody took
            raise
        finally:
            self._idle.put(helper)
        return self._aligner.posteriors(src, src_mask, trg, trg_mask)


def _serve(asked: Connection, path: Path) -> None:
    """Align until the other end is closed, by whatever end that process comes to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, and the training saves
    aligner = Aligner.load(path)
    try:
        while True:
            asked.send(aligner.posteriors(*asked.recv()))
    except (EOFError, OSError):
        return
