"""Translate lines of text: N lines in, N lines out, in order, independent of batching.

>>> from nmt import Translator
>>> translator = Translator.load("runs/tatoeba")
>>> for translation in translator.translate(["我爱中国。", "你好！"]):
...     print(translation.text, translation.score)
"""

# Over 400 lines: `Translator` is one public class; its docstrings are the API reference.
from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from nmt.config.schema import SearchConfig
from nmt.data.batches import pad_sources
from nmt.data.lengths import LengthStatistics
from nmt.data.tokenizer import Piece, Tokenizer
from nmt.device import choose_device
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.run.models import Model, open_model
from nmt.text.spans import SYMBOLS, compile_patterns, mask, order_table, restore
from nmt.translate.attention_map import AttentionMap, map_attention
from nmt.translate.constraints import SpanConstraints
from nmt.translate.flags import find_flags
from nmt.translate.protect import split_line
from nmt.translate.search import Hypothesis, beam_search, max_length
from nmt.translate.segment import Splitter
from nmt.translate.types import Candidate, Flag, Part, Translation

logger = logging.getLogger(__name__)

_WINDOW = 2048  # lines sorted by length together
_WINDOW_CHARACTERS = 1 << 20  # or fewer lines, if they are long
_MAX_ELEMENTS = 1 << 26  # of the largest tensors of all concurrent searches: 256 MiB
_MIN_SHARE = 8  # minimum batch size per thread


# Hypotheses chosen for a prefix of a line's parts, as a linked list.
_Chosen: TypeAlias = "tuple[_Chosen, Part, Hypothesis] | None"


class Translator:
    """A model and its tokenizers.

    Args:
        model: the network, or several with the same tokenizers: an ensemble, whose
            next-token probabilities are averaged.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        search: beam, length penalty, longest output.
        device: where to compute.
        max_pieces: maximum source length of one search, the limit used in training.
        int8: use 8-bit integer matmuls; CPU only.
        usual: typical lengths of the training data, if known: a line of several sentences
            that is longer than typical is translated sentence by sentence.
        frozen: the weights will not change, so tensors derived from them are cached.
        updates: update numbers of the loaded checkpoints.
        patterns: patterns of protected spans besides the built-in kinds; None to protect
            nothing.

    Raises:
        NmtError: `int8` on a GPU.
    """

    def __init__(
        self,
        model: Seq2Seq | Sequence[Seq2Seq],
        src: Tokenizer,
        trg: Tokenizer,
        search: SearchConfig,
        device: torch.device,
        max_pieces: int,
        *,
        int8: bool = False,
        usual: LengthStatistics | None = None,
        frozen: bool = False,
        updates: Sequence[int] = (),
        patterns: Sequence[str] | None = (),
    ) -> None:
        if int8 and device.type != "cpu":
            raise NmtError("--int8 runs on the CPU only", "add --device cpu, or leave --int8 out")
        self.models = [model] if isinstance(model, Seq2Seq) else list(model)
        self.src = src
        self.trg = trg
        self.search = search
        self.device = device
        self.max_pieces = max_pieces
        self.int8 = int8
        self.usual = usual
        self.updates = list(updates)
        self.protect(patterns)
        self._symbols = [id_ for symbol in SYMBOLS if (id_ := trg.id_of(symbol)) is not None]
        self._frozen = frozen
        self._ready: list[Inference] | None = None
        # Called after each batch of sentences. It may translate other lines meanwhile.
        self.after_batch: Callable[[], None] | None = None

    @property
    def model(self) -> Seq2Seq:
        """The network; the first one of an ensemble."""
        return self.models[0]

    @classmethod
    def load(
        cls,
        model: str | Path | Model | Sequence[str | Path | Model] | None = None,
        device: str = "auto",
        search: SearchConfig | None = None,
        *,
        int8: bool = False,
    ) -> Translator:
        """Load a run directory or a package, or several as an ensemble.

        Args:
            model: a run directory, whose best checkpoint is loaded, or a package; or an open
                one. Several must share their tokenizers, and the settings of the first are
                used. Default: the bundled model.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            search: override the model's search settings.
            int8: use 8-bit integer matmuls; CPU only, faster there.

        Raises:
            NmtError: missing, incomplete or damaged model; models that do not share their
                tokenizers; absent device; `int8` on a GPU.
        """
        sources = [model] if model is None or isinstance(model, str | Path | Model) else list(model)
        members = [
            source if isinstance(source, Model) else open_model(source) for source in sources
        ]
        first = members[0]
        for member in members[1:]:
            if member.info.tokenizers != first.info.tokenizers:
                raise NmtError(
                    f"{member.path}: has other tokenizers than {first.path}",
                    "an ensemble needs runs trained on one prepared corpus (data.dir)",
                )
        chosen = choose_device(device)
        loaded = (member.load_model(chosen) for member in members)
        updates, models = zip(*loaded, strict=True)
        return cls(
            models, first.src, first.trg, search or first.config.search, chosen,
            first.config.data.clean.max_pieces,
            int8=int8, usual=first.info.length_statistics, frozen=True, updates=updates,
            patterns=first.config.data.protect,
        )  # fmt: skip

    def change_search(self, changes: Mapping[str, float | None]) -> None:
        """Replace search settings by name; None keeps the current value."""
        overrides = {name: value for name, value in changes.items() if value is not None}
        self.search = self.search.model_copy(update=overrides)

    def protect(self, patterns: Sequence[str] | None) -> None:
        """Set the patterns of protected spans besides the built-in kinds; None for no spans.

        Raises:
            NmtError: a pattern is not a regular expression, or matches the empty text.
        """
        self.patterns = None if patterns is None else list(patterns)
        self._patterns = None if patterns is None else compile_patterns(patterns)

    def translate(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> list[Translation]:
        """Translate lines; return one `Translation` per line, in order.

        Args:
            lines: of one or more sentences; a blank line has a blank translation.
            batch_size: sentences searched together; affects speed and memory only.
            n_best: candidates to return for each line, at most the beam.

        Raises:
            NmtError: `n_best` is larger than the beam, or `lines` is one string.
        """
        return list(self.stream(lines, batch_size, n_best))

    def stream(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> Iterator[Translation]:
        """Yield the results of `translate`, in constant memory."""
        if isinstance(lines, str):
            raise NmtError("translate takes a list of lines, not one string", f"[{lines[:20]!r}]")
        if batch_size < 1 or n_best < 1:
            raise NmtError(f"batch_size {batch_size}, n_best {n_best}: at least 1 each")
        if n_best > self.search.beam:
            raise NmtError(
                f"n_best {n_best} is larger than the beam {self.search.beam}",
                f"use --beam {n_best}",
            )
        iterator = iter(lines)
        members = self._inference()
        while window := _window(iterator):
            yield from self._translate_window(members, window, batch_size, n_best)

    def _map_part(self, part: Part) -> AttentionMap:
        hypothesis = part.hypotheses[0]
        if part.literal:
            words = part.source.split()
            weights = np.full((len(words), len(part.source)), 1 / len(part.source), np.float32)
            return AttentionMap(list(part.source), words, weights)
        return map_attention(part.source, part.pieces, hypothesis, self.src, self.trg, part.masked)

    def _find_flags(self, translation: Translation) -> list[Flag]:
        return find_flags(translation, self.src, self.usual)

    def _inference(self) -> list[Inference]:
        if self._ready is not None:
            return self._ready
        # NaN would become an ordinary integer.
        if self.int8 and not all(
            bool(torch.isfinite(weights).all())
            for model in self.models
            for weights in model.parameters()
        ):
            raise _no_probabilities()
        ready = [Inference(model, int8=self.int8) for model in self.models]
        if self._frozen:
            self._ready = ready
        return ready

    def _translate_window(
        self, members: list[Inference], lines: list[str], batch_size: int, n_best: int
    ) -> Iterator[Translation]:
        parts = [
            (number, part)
            for number, line in enumerate(map(_encodable, lines))
            for part in self._parts(line)
        ]
        searched = [part for _, part in parts if not part.literal]
        for part, hypotheses in zip(
            searched, self._search_all(members, searched, batch_size, n_best), strict=True
        ):
            part.hypotheses.extend(hypotheses)
        # Restore the order of the input.
        line_parts: list[list[Part]] = [[] for _ in lines]
        for number, part in parts:
            line_parts[number].append(part)
        for source, sections in zip(lines, line_parts, strict=True):
            yield self._join(source, sections, n_best)

    def _parts(self, line: str) -> Iterator[Part]:
        """Split and tokenise a line; the hypotheses are still missing."""
        splitter = self._splitter()

        def split(text: str) -> Iterator[tuple[int, str]]:
            pieces = self.src.pieces(text)
            tokenised[text] = pieces
            if len(pieces) > splitter.target_pieces:
                yield from splitter.split(text)
            elif pieces:
                yield 0, text

        tokenised: dict[str, list[Piece]] = {}
        has_symbols = len(self._symbols) == len(SYMBOLS)
        for section in split_line(line, self._patterns, split, has_symbols=has_symbols):
            if section.literal:
                attention = torch.zeros(1, 0)
                literal = [Hypothesis([], 0.0, 0.0, attention)]
                yield Part(section.text, literal, [], section.begin, literal=True)
                continue
            masked = mask(section.text, section.spans) if section.spans else None
            text = section.text if masked is None else masked.text
            pieces = tokenised.get(text) or self.src.pieces(text)
            yield Part(section.text, [], pieces, section.begin, masked)

    def _search_all(
        self, members: list[Inference], parts: list[Part], batch_size: int, n_best: int
    ) -> list[list[Hypothesis]]:
        """Search for all parts, batched by length."""
        ids = [[piece.id for piece in part.pieces] for part in parts]
        tables = [[0] if p.masked is None else order_table(p.masked.spans) for p in parts]
        results: list[list[Hypothesis]] = [[] for _ in ids]
        were_training = [model.training for model in self.models]
        for model in self.models:
            model.eval()

        def search(batch: list[int]) -> list[list[Hypothesis]]:
            return self._search(
                members, [ids[n] for n in batch], [tables[n] for n in batch], n_best
            )

        batches = self._batches(ids, batch_size)
        for batch, hypotheses in zip(batches, self._each(search, batches), strict=True):
            for index, best in zip(batch, hypotheses, strict=True):
                results[index] = best
            if self.after_batch is not None:
                self.after_batch()
        for model, training in zip(self.models, were_training, strict=True):
            model.train(training)
        return results

    def _batches(self, ids: list[list[int]], batch_size: int) -> list[list[int]]:
        """Group the indices of the sources by length, longest first."""
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        # One batch per core, unless that makes the batches too small.
        cores = self._cores()
        batch_size = min(batch_size, max(-(-len(order) // cores), _MIN_SHARE))
        batches, start = [], 0
        while start < len(order):
            # A wide beam, a long source or a large vocabulary makes the batch smaller.
            row = max(len(self.trg), len(ids[order[start]]) * self.model.decoder.hidden)
            fits = max(1, _MAX_ELEMENTS // (row * self.search.beam * cores))
            batches.append(order[start : start + min(batch_size, fits)])
            start += len(batches[-1])
        return batches

    def _each(
        self, search: Callable[[list[int]], list[list[Hypothesis]]], batches: list[list[int]]
    ) -> Iterator[list[list[Hypothesis]]]:
        """Search all batches, in order; on a CPU one batch per core.

        A step of the search is many small operations, so threads inside one operation mostly
        wait for each other. PyTorch's number of threads is process-wide and 1 meanwhile.
        """
        threads = min(self._cores(), len(batches))
        if threads < 2:
            yield from map(search, batches)
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # per operation; new threads inherit it
        try:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(search, batches)
        finally:
            torch.set_num_threads(before)

    def _cores(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _search(
        self,
        members: list[Inference],
        sources: list[list[int]],
        tables: list[list[int]],
        n_best: int,
    ) -> list[list[Hypothesis]]:
        src, src_mask = pad_sources(sources)
        limits = torch.tensor([max_length(len(ids), self.search.max_ratio) for ids in sources])
        constraints = None
        if self._symbols:
            constraints = SpanConstraints(self._symbols, tables, limits, self.device)
        hypotheses = beam_search(
            members,
            src.to(self.device),
            src_mask.to(self.device),
            beam=self.search.beam,
            alpha=self.search.length_penalty,
            beta=self.search.coverage_penalty,
            no_repeat=self.search.no_repeat_ngram,
            max_lengths=limits,
            n_best=n_best,
            constraints=constraints,
        )
        if not all(hypotheses):
            raise _no_probabilities()
        return hypotheses

    def _join(self, source: str, parts: list[Part], n_best: int) -> Translation:
        if not parts:
            return Translation(source, "")
        # Score, log-probability, and the chosen hypotheses as a linked list: texts are joined
        # once, in time linear in the length of the line.
        best: list[tuple[float, float, _Chosen]] = [(0.0, 0.0, None)]
        for part in parts:
            extended = (
                (
                    score + hypothesis.score,
                    log_prob + hypothesis.log_prob,
                    (chosen, part, hypothesis),
                )
                for score, log_prob, chosen in best
                for hypothesis in part.hypotheses
            )
            best = heapq.nlargest(n_best, extended, key=lambda candidate: candidate[0])
        candidates = [Candidate(self._text(chosen), score, log) for score, log, chosen in best]
        first = candidates[0]
        return Translation(
            source, first.text, first.score, parts, candidates, self._map_part, self._find_flags
        )

    def _text(self, chosen: _Chosen) -> str:
        texts = []
        while chosen is not None:
            chosen, part, hypothesis = chosen
            text = part.source.strip() if part.literal else self.trg.decode(hypothesis.ids)
            texts.append(text if part.masked is None else restore(text, part.masked.spans))
        return " ".join(filter(None, reversed(texts)))

    def _splitter(self) -> Splitter:
        typical = self.max_pieces if self.usual is None else self.usual.typical
        return Splitter(
            lambda text: len(self.src.encode(text)),
            self.max_pieces,
            min(self.max_pieces, typical),
        )


def _no_probabilities() -> NmtError:
    return NmtError(
        "the network gives no probabilities: its weights hold NaN or infinite numbers",
        "its training has diverged: lower train.learning_rate and train again",
    )


def _window(lines: Iterator[str]) -> list[str]:
    """The next lines to be sorted by length together."""
    window: list[str] = []
    characters = 0
    for line in itertools.islice(lines, _WINDOW):
        window.append(line)
        characters += len(line)
        if characters >= _WINDOW_CHARACTERS:
            break
    return window


def _encodable(text: str) -> str:
    """`text` with ``?`` for halves of surrogate pairs, which UTF-8 can't hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
