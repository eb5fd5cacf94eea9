"""Sample training text for SentencePiece, and train both tokenizers in parallel."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO

from nmt.data.packed import SIDES
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.io.read import read_lines
from nmt.prepare.chunks import normalised_pair
from nmt.prepare.pool import Pool

# More text hardly changes the pieces but costs time and memory.
_MAX_PAIRS = 250_000
_MAX_CHARS = 25_000_000  # of a side


class Sample:
    """An evenly spaced sample of the training pairs, one text file per side.

    A context manager. The sample has at most 250,000 pairs, which bounds memory and time of
    training SentencePiece for large corpora.

    Args:
        folder: folder of the files ``src.sample.tmp`` and ``trg.sample.tmp``.
        total: number of training pairs that will be offered.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.total = total
        self.paths = [folder / f"{side}.sample.tmp" for side in SIDES]
        self._offered = 0
        self._chars_left = [_MAX_CHARS, _MAX_CHARS]
        self._stack = ExitStack()
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Sample:
        self._files = [self._stack.enter_context(path.open("wb")) for path in self.paths]
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def remove(self) -> None:
        """Remove the files."""
        for path in self.paths:
            path.unlink()

    def offer(self, line: bytes) -> None:
        """Add the scratch line of a training pair if it belongs to the sample."""
        size = min(_MAX_PAIRS, self.total)
        if self._offered * size // self.total != (self._offered + 1) * size // self.total:
            for side, text in enumerate(normalised_pair(line)):
                if len(text) <= self._chars_left[side]:
                    self._chars_left[side] -= len(text)
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
    """Train the tokenizers of both sides, in two processes if available.

    Args:
        sample: the training text.
        sizes: number of pieces of each side.
        grow: whether a side may have more pieces to hold all its characters.
        simplify: whether the source tokenizer converts to Simplified.
        workers: number of processes.

    Returns:
        Source and target tokenizer, and warnings.

    Raises:
        NmtError: a vocabulary size is too small for the characters of the corpus.
    """
    jobs = [(sample.paths[side], side, sizes[side], grow[side], simplify) for side in (0, 1)]
    large = sample.total > 20_000 or (workers or 0) > 1
    with Pool(min(workers or 2, 2) if large else 1) as pool:
        (src, src_warning), (trg, trg_warning) = pool.map(_train, jobs)
    sample.remove()
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
