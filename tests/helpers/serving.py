"""A translator without a network, and a server in a thread, for tests of `nmt serve`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from nmt.config.schema import SearchConfig
from nmt.serve.app import Settings, create_app
from nmt.serve.guard import Guard
from nmt.serve.server import Server, listen
from nmt.translate.types import Candidate, Translation


class WordTranslator:
    """Translate each character to a word: 我爱 becomes "w6211 w7231".

    Args:
        seconds: time of a batch.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.search = SearchConfig(beam=4)
        self.seconds = seconds
        self.after_batch: Callable[[], None] | None = None
        self.batches: list[list[str]] = []

    def translate(self, lines: list[str], batch_size: int, n_best: int) -> list[Translation]:
        assert len(lines) <= batch_size
        self.batches.append(lines)
        for _ in range(1 + sum(map(len, lines)) // 1000):  # as many searches as for sentences
            time.sleep(self.seconds)
            if self.after_batch is not None:
                self.after_batch()
        return [self._translate(line, n_best) for line in lines]

    def _translate(self, line: str, n_best: int) -> Translation:
        if "坏" in line:
            raise ValueError(line)
        text = words(line)
        variants = [text, text + " again", text] + [f"{text} {number}" for number in range(4)]
        candidates = [Candidate(variant, 0.0, 0.0) for variant in variants[:n_best]]
        return Translation(line, text, candidates=candidates if text else [])


def words(line: str) -> str:
    """Return the translation of a line by `WordTranslator`: Latin letters are kept."""
    return "".join(c if c.isascii() else f"w{ord(c):04x} " for c in line).strip()


@contextlib.contextmanager
def serving(app: Guard) -> Iterator[str]:
    """Context manager: run a server in a thread; yields its address."""
    listener = listen("127.0.0.1", 0)
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()


def word_app(translator: WordTranslator | None = None, **settings: Any) -> Guard:
    """Return the application with a `WordTranslator`."""
    return create_app(translator or WordTranslator(), Settings(**settings))
