"""The work on one chunk of pairs, done in any process, and the way to do it in all of them.

What a chunk gives depends on the chunk alone, and chunks come back in order: the output
is the same to the byte for any number of workers.
"""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nmt.config.schema import CleanConfig
from nmt.data.tokenizer import load_both
from nmt.device import allowed_cores
from nmt.errors import NmtError
from nmt.prepare import clean
from nmt.prepare.keys import sentence_key, text_key
from nmt.prepare.sources import Pair
from nmt.prepare.statistics import Statistics
from nmt.text.normalise import normalise

CHUNK = 4000  # pairs handed to a worker at once
EXAMPLES = 5  # shown for each drop reason
_FEW = 8  # chunks that are done in this process before others are started

T = TypeVar("T")
R = TypeVar("R")


_FINAL_MARKS = "。.!?"  # after NFKC: full-width marks but the first are half-width by then


@dataclass
class Drops:
    """How many pairs were dropped for each reason, and some of them to look at.

    The examples are drawn by a number made of their text, so that they come from all of
    the corpus and are the same for any number of workers.
    """

    counts: Counter[str] = field(default_factory=Counter)
    _drawn: dict[str, dict[int, Pair]] = field(default_factory=dict)

    def drop(self, reason: str, pair: Pair, count: int = 1) -> None:
        """Count a dropped pair; `count` 0 only shows it."""
        self.counts[reason] += count
        shown = Pair(_shown(pair.src), _shown(pair.trg))
        self._offer(reason, {text_key(f"{shown.src}\t{shown.trg}"): shown})

    def add(self, other: Drops) -> None:
        """Add the drops of another chunk."""
        for reason, pairs in other._drawn.items():
            self._offer(reason, pairs)
        self.counts.update(other.counts)

    def _offer(self, reason: str, pairs: dict[int, Pair]) -> None:
        all_of_them = self._drawn.get(reason, {}) | pairs
        self._drawn[reason] = {key: all_of_them[key] for key in sorted(all_of_them)[:EXAMPLES]}

    def examples(self, reason: str) -> list[Pair]:
        """The pairs to show for a reason, at most `EXAMPLES`, each another one."""
        return list(self._drawn.get(reason, {}).values())


def _shown(text: str) -> str:
    return text[:200].encode("utf-8", "replace").decode()


@dataclass
class Cleaned:
    """A chunk after the rules that look at one pair.

    Attributes:
        lines: the pairs kept, as `pack_line` writes them, each ended by a line end.
        keys: of the kept pairs: source, target and whole, `[3, kept]`.
        read: pairs in the chunk.
        drops: the others.
        statistics: of the kept.
    """

    lines: bytes
    keys: NDArray[np.uint64]
    read: int
    drops: Drops
    statistics: Statistics


def clean_chunk(
    config: CleanConfig, simplify: bool, drop_final_punctuation: float, chunk: list[tuple[str, str]]
) -> Cleaned:
    """Ask the rules about each pair, normalise and key the kept.

    Args:
        config: which rules, and their limits.
        simplify: of the source side.
        drop_final_punctuation: share of sources that lose their final mark.
        chunk: raw pairs.
    """
    rules = _rules(config)
    drops, kept, lines = Drops(), [], []
    keys: list[tuple[int, int, int]] = []
    for item in chunk:
        pair = Pair(*item)
        for name, bad in rules:
            if bad(pair):
                drops.drop(name, pair)
                break
        else:
            src, trg = normalise(pair.src, simplify=simplify), normalise(pair.trg, simplify=False)
            if not src or not trg:  # made of invisible characters alone
                drops.drop("empty side", pair)
                continue
            kept.append(pair)
            key = text_key(f"{src}\t{trg}")
            keys.append((sentence_key(src), sentence_key(trg), key))
            if key % 1000 < drop_final_punctuation * 1000:
                src = src.rstrip(_FINAL_MARKS) or src
            lines.append(pack_line(pair, src, trg))
    statistics = Statistics()
    statistics.observe(kept)
    return Cleaned(
        b"".join(lines),
        np.array(keys, dtype=np.uint64).reshape(-1, 3).T.copy(),
        len(chunk),
        drops,
        statistics,
    )


@functools.lru_cache(maxsize=1)
def _rules(config: CleanConfig) -> list[tuple[str, clean.Rule]]:
    return list(clean.pair_rules(config).items())


def pack_line(pair: Pair, src: str, trg: str) -> bytes:
    """One line of the scratch file: both sides normalised, and raw if that is another text.

    Normalised text holds no tab and no line end; the raw one may, so it is in JSON.
    """
    raw = "" if pair == (src, trg) else json.dumps(pair, ensure_ascii=False)
    return f"{src}\t{trg}\t{raw}\n".encode()


def raw_pair(line: bytes) -> Pair:
    """The pair of a scratch line as it stood in the source."""
    src, trg, raw = line.decode().rstrip("\n").split("\t")
    return Pair(*json.loads(raw)) if raw else Pair(src, trg)


def normalised_pair(line: bytes) -> tuple[str, str]:
    """The pair of a scratch line as the model sees it."""
    src, trg, _ = line.decode().split("\t")
    return src, trg


@dataclass
class Encoded:
    """A chunk in ids.

    Attributes:
        ids: of each side, end to end.
        lengths: ids of each sentence, by side.
        drops: pairs with too many or too few pieces; repeats of a pair count as pairs.
        statistics: of the pieces.
    """

    ids: tuple[NDArray[np.int32], NDArray[np.int32]]
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]]
    drops: Drops
    statistics: Statistics


def encode_chunk(
    folder: Path, simplify: bool, limits: tuple[int, int], chunk: tuple[list[bytes], list[int]]
) -> Encoded:
    """Cut scratch lines into pieces.

    Args:
        folder: where ``src.model`` and ``trg.model`` are.
        simplify: of the source side.
        limits: fewest and most pieces of a side.
        chunk: the lines, and how many times each is wanted.
    """
    tokenizers = _tokenizers(folder, simplify=simplify)
    lines, copies = chunk
    sides: list[list[str]] = [list(side) for side in zip(*map(normalised_pair, lines), strict=True)]
    encoded = [t.encode_normalised(side) for t, side in zip(tokenizers, sides, strict=True)]
    drops = Drops()
    kept: tuple[list[list[int]], list[list[int]]] = ([], [])
    fewest, most = limits
    for line, times, src, trg in zip(lines, copies, *encoded, strict=True):
        if max(len(src), len(trg)) > most:
            drops.drop(f"over {most} pieces", raw_pair(line), times)
        elif min(len(src), len(trg)) < fewest:
            drops.drop(f"under {fewest} pieces", raw_pair(line), times)
        else:
            kept[0].extend([src] * times)
            kept[1].extend([trg] * times)
    statistics = Statistics()
    for side, tokenizer, sentences in zip(("src", "trg"), tokenizers, kept, strict=True):
        statistics.observe_pieces(side, tokenizer, sentences)
    return Encoded(
        (_flat(kept[0]), _flat(kept[1])),
        (_lengths(kept[0]), _lengths(kept[1])),
        drops,
        statistics,
    )


_tokenizers = functools.lru_cache(maxsize=1)(load_both)


def _flat(sentences: list[list[int]]) -> NDArray[np.int32]:
    return np.fromiter(itertools.chain.from_iterable(sentences), np.int32)


def _lengths(sentences: list[list[int]]) -> NDArray[np.int64]:
    return np.fromiter(map(len, sentences), np.int64, len(sentences))


def chunked(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


class Pool:
    """Processes that share the work of one pass. Use as a context manager.

    Args:
        count: processes; None for as many as there are cores, and none of them for a
            stream of a few chunks, which is done sooner than they are started.
    """

    def __init__(self, count: int | None) -> None:
        self.count = allowed_cores() if count is None else count
        self._at_once = count is not None and count > 1
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`work` of each item, in order; never more than a few items are held.

        Raises:
            NmtError: a worker was killed, for want of memory most likely.
        """
        stream = iter(items)
        if self.count < 2:
            yield from map(work, stream)
            return
        if not self._at_once and self._pool is None:
            first = list(itertools.islice(stream, _FEW))
            if len(first) < _FEW:
                yield from map(work, first)
                return
            stream = itertools.chain(first, stream)
        yield from self._map_in_pool(work, stream)

    def _map_in_pool(self, work: Callable[[T], R], stream: Iterator[T]) -> Iterator[R]:
        if self._pool is None:
            # Spawned, not forked: the progress bar has a thread.
            self._pool = ProcessPoolExecutor(
                self.count, multiprocessing.get_context("spawn"), initializer=_end_with_the_parent
            )
        waiting: deque[Future[R]] = deque()
        try:
            for item in stream:
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > 3 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise NmtError(
                "a worker process was killed, for want of memory most likely",
                "run again with --workers 1",
            ) from error


def _end_with_the_parent() -> None:
    # At once and without a traceback, even in the middle of SentencePiece's training.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()  # killed, it could tell nobody to end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
