"""The sample that SentencePiece learns from, and the learning of both sides at once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO

from nmt.data.packed import SIDES
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.io.read import read_lines
from nmt.prepare.chunks import Pool, normalised_pair

# Pieces hardly change with more text than this, time and memory do.
_MOST_PAIRS = 250_000
_MOST_CHARACTERS = 25_000_000  # of a side


class Sample:
    """Training pairs taken evenly, one text file a side. Use as a context manager.

    All of them up to 250,000, and exactly so many of any larger corpus: memory and time of
    the learning, the peak of both, are then the same for every corpus that is large.

    Args:
        folder: where the files go, ``src.sample.tmp`` and ``trg.sample.tmp``.
        total: training pairs that will be offered.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.total = total
        self.paths = [folder / f"{side}.sample.tmp" for side in SIDES]
        self._offered = 0
        self._room = [_MOST_CHARACTERS, _MOST_CHARACTERS]
        self._stack = ExitStack()
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Sample:
        self._files = [self._stack.enter_context(path.open("wb")) for path in self.paths]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def offer(self, line: bytes) -> None:
        """Take a scratch line of a training pair into the sample, or pass it over."""
        share = min(_MOST_PAIRS, self.total)
        if self._offered * share // self.total != (self._offered + 1) * share // self.total:
            for side, text in enumerate(normalised_pair(line)):
                if len(text) <= self._room[side]:
                    self._room[side] -= len(text)
                    self._files[side].write(text.encode() + b"\n")
        self._offered += 1


def train_both(
    sample: Sample,
    sizes: tuple[int, int],
    grow: tuple[bool, bool],
    *,
    simplify: bool,
    workers: int | None,
) -> tuple[tuple[Tokenizer, Tokenizer], list[str]]:
    """Train the tokenizers of both sides, in two processes if there are two.

    Args:
        sample: what they learn from.
        sizes: pieces of each side.
        grow: whether a side may have more of them if its characters ask for that.
        simplify: of the source side.
        workers: processes to use.

    Returns:
        Source and target tokenizer, and warnings.

    Raises:
        NmtError: a vocabulary size does not hold the characters of the corpus.
    """
    jobs = [(sample.paths[side], side, sizes[side], grow[side], simplify) for side in (0, 1)]
    large = sample.total > 20_000 or (workers or 0) > 1
    with Pool(min(workers or 2, 2) if large else 1) as pool:
        (src, src_warning), (trg, trg_warning) = pool.map(_train, jobs)
    for path in sample.paths:
        path.unlink()
    tokenizers = Tokenizer(src, simplify=simplify), Tokenizer(trg, simplify=False)
    return tokenizers, [warning for warning in (src_warning, trg_warning) if warning]


def _train(job: tuple[Path, int, int, bool, bool]) -> tuple[bytes, str | None]:
    path, side, vocab, grow, simplify = job
    tokenizer, warning = train_tokenizer(
        read_lines(path),
        vocab=vocab,
        grow=grow,
        simplify=simplify and side == 0,
        character_coverage=0.9995 if side == 0 else 0.9999,
        space_first=side == 1,
        name=f"data.{SIDES[side]}_vocab",
    )
    return tokenizer.model, warning
