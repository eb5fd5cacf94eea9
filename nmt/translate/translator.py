"""Text in, text out: one line for one line, in order, whatever the batches were."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from nmt.batches import pad_sources
from nmt.checkpoint import Run
from nmt.config import SearchConfig
from nmt.model import Seq2Seq
from nmt.runtime import choose_device
from nmt.tokenizer import Tokenizer
from nmt.translate.alignment import Alignment, align
from nmt.translate.search import Hypothesis, beam_search, max_length

_WINDOW = 2048  # lines sorted by length together
_SENTENCE_END = re.compile(r"[^。！？!?；;…]*[。！？!?；;…]+[”’」』）)\"']*|[^。！？!?；;…]+")
_CLAUSE_END = re.compile(r"[^，,、：:\s]*[，,、：:\s]+|[^，,、：:\s]+")


@dataclass(frozen=True)
class Part:
    """A stretch of the source that was translated in one search."""

    source: str
    hypotheses: list[Hypothesis]


@dataclass(frozen=True)
class Translation:
    """The translation of one line.

    Attributes:
        source: the line as it was given.
        text: its translation; empty for a blank line.
        score: sum over parts of the best hypothesis' score; 0 for a blank line.
        parts: one, or several if the line was too long for one search.
    """

    source: str
    text: str
    score: float = 0.0
    parts: list[Part] = field(default_factory=list)


class Translator:
    """A model and its tokenizers.

    Args:
        model: the network.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        search: beam, length penalty, longest output.
        device: where to compute.
        max_pieces: a longer source is translated in parts; the length that training
            was limited to.
    """

    def __init__(
        self,
        model: Seq2Seq,
        src: Tokenizer,
        trg: Tokenizer,
        search: SearchConfig,
        device: torch.device,
        max_pieces: int,
    ) -> None:
        self.model = model
        self.src = src
        self.trg = trg
        self.search = search
        self.device = device
        self.max_pieces = max_pieces

    @classmethod
    def load(
        cls, run: str | Path, device: str = "auto", search: SearchConfig | None = None
    ) -> Translator:
        """Load the best checkpoint of a run directory.

        Args:
            run: the directory that ``nmt train`` wrote.
            device: ``auto``, ``cpu`` or ``cuda``.
            search: instead of the run's own.

        Raises:
            NmtError: missing, incomplete or damaged run; absent device.
        """
        opened = Run.open(Path(run))
        chosen = choose_device(device)
        model = opened.load_best(chosen)
        return cls(
            model, opened.src, opened.trg, search or opened.config.search, chosen,
            opened.config.data.clean.max_pieces,
        )  # fmt: skip

    def translate(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> list[Translation]:
        """Translate lines; as many come back, in the same order."""
        return list(self.stream(lines, batch_size, n_best))

    def stream(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> Iterator[Translation]:
        """As `translate`, window by window: memory does not grow with the lines."""
        iterator = iter(lines)
        while window := list(itertools.islice(iterator, _WINDOW)):
            yield from self._translate_window(window, batch_size, n_best)

    def alignments(self, translation: Translation) -> list[Alignment]:
        """What each part of a translation attended to."""
        return [
            align(part.source, part.hypotheses[0], self.src, self.trg) for part in translation.parts
        ]

    def _translate_window(
        self, lines: list[str], batch_size: int, n_best: int
    ) -> Iterator[Translation]:
        parts = [(line, text) for line, source in enumerate(lines) for text in self._split(source)]
        ids = self.src.encode_all([text for _, text in parts])
        found: list[list[Hypothesis]] = [[] for _ in parts]
        order = sorted(range(len(parts)), key=lambda part: -len(ids[part]))
        was_training = self.model.training
        self.model.eval()
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for part, hypotheses in zip(
                batch, self._search([ids[part] for part in batch], n_best), strict=True
            ):
                found[part] = hypotheses
        self.model.train(was_training)
        # The one place where order is restored.
        of_line: list[list[Part]] = [[] for _ in lines]
        for (line, text), hypotheses in zip(parts, found, strict=True):
            of_line[line].append(Part(text, hypotheses))
        for source, its_parts in zip(lines, of_line, strict=True):
            yield self._join(source, its_parts)

    def _search(self, sources: list[list[int]], n_best: int) -> list[list[Hypothesis]]:
        src, src_mask = pad_sources(sources)
        limits = torch.tensor([max_length(len(ids), self.search.max_ratio) for ids in sources])
        return beam_search(
            self.model,
            src.to(self.device),
            src_mask.to(self.device),
            beam=self.search.beam,
            alpha=self.search.alpha,
            max_lengths=limits,
            n_best=n_best,
        )

    def _join(self, source: str, parts: list[Part]) -> Translation:
        texts = [self.trg.decode(part.hypotheses[0].ids) for part in parts]
        score = sum(part.hypotheses[0].score for part in parts)
        return Translation(source, " ".join(filter(None, texts)), score, parts)

    def _split(self, line: str) -> list[str]:
        """Parts of at most `max_pieces` pieces: none for a blank line, mostly the line itself."""
        count = len(self.src.encode(line))
        if count == 0:
            return []
        if count <= self.max_pieces:
            return [line]
        return self._split_at(line, [_SENTENCE_END, _CLAUSE_END])

    def _split_at(self, text: str, patterns: list[re.Pattern[str]]) -> list[str]:
        if not patterns:
            return self._split_hard(text)
        parts: list[str] = []
        current, room = "", self.max_pieces
        for stretch in patterns[0].findall(text):
            count = len(self.src.encode(stretch))
            if count > self.max_pieces:
                if current:
                    parts.append(current)
                parts.extend(self._split_at(stretch, patterns[1:]))
                current, room = "", self.max_pieces
            elif count > room:
                parts.append(current)
                current, room = stretch, self.max_pieces - count
            else:
                current, room = current + stretch, room - count
        if current:
            parts.append(current)
        return [part for part in parts if self.src.encode(part)]

    def _split_hard(self, text: str) -> list[str]:
        """Cut where nothing marks an end, so that any text gets through."""
        cuts, begin, start = [], 0, 0
        pieces = self.src.pieces(text)
        normalised = self.src.normalise(text)
        while start < len(pieces):
            stop = min(start + self.max_pieces, len(pieces))
            # Never between the bytes of one character.
            while (
                stop < len(pieces)
                and stop > start + 1
                and pieces[stop].begin < pieces[stop - 1].end
            ):
                stop -= 1
            end = pieces[stop].begin if stop < len(pieces) else len(normalised)
            cuts.append(normalised[begin:end])
            begin, start = end, stop
        return cuts
