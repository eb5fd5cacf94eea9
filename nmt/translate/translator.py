"""Text in, text out: one line for one line, in order, whatever the batches were.

>>> from nmt import Translator
>>> translator = Translator.load("runs/tatoeba")
>>> for translation in translator.translate(["我爱中国。", "你好！"]):
...     print(translation.text, translation.score)
"""

from __future__ import annotations

import heapq
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch

from nmt.config.schema import SearchConfig
from nmt.data.batches import pad_sources
from nmt.data.tokenizer import Tokenizer
from nmt.device import choose_device
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.run.directory import Run
from nmt.translate.attention_map import Alignment, align, joined, joined_links
from nmt.translate.flags import Flag, flags
from nmt.translate.lengths import UsualLengths
from nmt.translate.search import Hypothesis, beam_search, max_length

logger = logging.getLogger(__name__)

_WINDOW = 2048  # lines sorted by length together
_WINDOW_CHARACTERS = 1 << 20  # or fewer lines, if they are long
_DEV_LINES = 1000  # whose lengths are looked at, or some more
_MOST_NUMBERS = 1 << 26  # in the largest tensors of all searches at a time: 256 MiB
_LEAST_SHARE = 8  # sentences that are worth a core of their own
_SENTENCE_END = re.compile(r"[^。！？!?]*[。！？!?]+[”’」』】》〉〕］｝）)\]}\"＂'…]*|[^。！？!?]+")
_CLAUSE_END = re.compile(r"[^，,、；;：:…\s]*[，,、；;：:…\s]+|[^，,、；;：:…\s]+")


# Hypotheses of a line's parts up to one of them: those before it, and its own.
_Chosen: TypeAlias = "tuple[_Chosen, Hypothesis] | None"


@dataclass(frozen=True)
class Part:
    """A stretch of the source that was translated in one search.

    Attributes:
        source: its text, as the user wrote it.
        hypotheses: best score first.
        begin: where in the line it begins, in characters.
    """

    source: str
    hypotheses: list[Hypothesis]
    begin: int = 0


@dataclass(frozen=True)
class Candidate:
    """One of several translations of a line.

    Attributes:
        text: on one line.
        score: what ranks it; sum over parts.
        log_prob: natural log of its probability, EOS counted; sum over parts.
    """

    text: str
    score: float
    log_prob: float


@dataclass(frozen=True)
class Translation:
    """The translation of one line.

    Attributes:
        source: the line as it was given.
        text: its translation; empty for a blank line.
        score: sum over parts of the best hypothesis' score; 0 for a blank line.
        parts: one, or several if the line was too long for one search.
        candidates: the best translations, best first, as many as were asked for if the
            search found so many; none for a blank line.
    """

    source: str
    text: str
    score: float = 0.0
    parts: list[Part] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def log_prob(self) -> float:
        """Natural log of the translation's probability; 0 for a blank line."""
        return sum(part.hypotheses[0].log_prob for part in self.parts)


class Translator:
    """A model and its tokenizers.

    Args:
        model: the network, or several with the same tokenizers: an ensemble, whose
            next-token probabilities are averaged.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        search: beam, length penalty, longest output.
        device: where to compute.
        max_pieces: a longer source is translated in parts; the length that training
            was limited to.
        int8: multiply in 8-bit integers; CPU only.
        usual: lengths that the network is used to, if they are known: a line of several
            sentences that is longer than typical is translated sentence by sentence.
        frozen: the weights will not change any more, so that what the search makes of
            them is made once and not at each call.
        updates: of the checkpoints that the networks were loaded from.

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
        usual: UsualLengths | None = None,
        frozen: bool = False,
        updates: Sequence[int] = (),
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
        self._frozen = frozen
        self._ready: list[Inference] | None = None

    @property
    def model(self) -> Seq2Seq:
        """The network; the first one of an ensemble."""
        return self.models[0]

    @classmethod
    def load(
        cls,
        run: str | Path | Sequence[str | Path],
        device: str = "auto",
        search: SearchConfig | None = None,
        *,
        int8: bool = False,
    ) -> Translator:
        """Load the best checkpoint of a run directory, or of several as an ensemble.

        Args:
            run: the directory that ``nmt train`` wrote; several must have the same
                tokenizers, and the first one's settings count.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            search: instead of the run's own.
            int8: multiply in 8-bit integers; CPU only, faster there.

        Raises:
            NmtError: missing, incomplete or damaged run; runs that do not share their
                tokenizers; absent device; `int8` on a GPU.
        """
        folders = [run] if isinstance(run, str | Path) else list(run)
        opened = [Run.open(Path(folder)) for folder in folders]
        first = opened[0]
        for other in opened[1:]:
            if other.info["tokenizers"] != first.info["tokenizers"]:
                raise NmtError(
                    f"{other.folder}: has other tokenizers than {first.folder}",
                    "an ensemble needs runs trained on one prepared corpus (data.dir)",
                )
        chosen = choose_device(device)
        updates, models = zip(*(one.load_best(chosen) for one in opened), strict=True)
        return cls(
            models, first.src, first.trg, search or first.config.search, chosen,
            first.config.data.clean.max_pieces,
            int8=int8, usual=usual_lengths(first), frozen=True, updates=updates,
        )  # fmt: skip

    def change_search(self, changes: Mapping[str, float | None]) -> None:
        """Replace settings of the search by name; None leaves one as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        self.search = self.search.model_copy(update=given)

    def translate(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> list[Translation]:
        """Translate lines; as many come back, in the same order.

        Args:
            lines: one sentence or more each; a blank one stays blank.
            batch_size: sentences searched together; changes speed and memory only.
            n_best: candidates to return for each line, at most the beam.

        Raises:
            NmtError: `n_best` is larger than the beam, or `lines` is one string.
        """
        return list(self.stream(lines, batch_size, n_best))

    def stream(
        self, lines: Iterable[str], batch_size: int = 64, n_best: int = 1
    ) -> Iterator[Translation]:
        """As `translate`, window by window: memory does not grow with the lines."""
        if isinstance(lines, str):
            raise NmtError("one text was given, lines are translated", f"[{lines[:20]!r}]")
        if batch_size < 1 or n_best < 1:
            raise NmtError(f"batch_size {batch_size}, n_best {n_best}: at least 1 each")
        if n_best > self.search.beam:
            raise NmtError(
                f"{n_best} best translations asked of a beam of {self.search.beam}",
                f"make it wider: --beam {n_best}",
            )
        iterator = iter(lines)
        members = self._inference()
        while window := _window(iterator):
            yield from self._translate_window(members, window, batch_size, n_best)

    def alignments(self, translation: Translation) -> list[Alignment]:
        """What each part of a translation attended to."""
        return [
            align(part.source, part.hypotheses[0], self.src, self.trg) for part in translation.parts
        ]

    def alignment(self, translation: Translation) -> Alignment:
        """What the words of a translation attended to, over the whole line: `[words, characters]`.

        Of a line in many parts that is far larger than `alignments` and `links`, which grow
        with its length, not with its square.
        """
        begins = [part.begin for part in translation.parts]
        return joined(translation.source, self.alignments(translation), begins)

    def links(self, translation: Translation) -> list[tuple[int, int]]:
        """The characters each word stands for: (character, word), both from 0, sorted."""
        begins = [part.begin for part in translation.parts]
        return joined_links(self.alignments(translation), begins)

    def flags(self, translation: Translation) -> list[Flag]:
        """Signs that a translation may be wrong; see `nmt.translate.flags`."""
        return flags(translation, self.src, self.usual)

    def _inference(self) -> list[Inference]:
        if self._ready is not None:
            return self._ready
        # Rounded to integers, NaN would look like a number from here on.
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
        texts = [_encodable(line) for line in lines]
        ids = self.src.encode_all(texts)
        parts: list[tuple[int, int, str]] = []  # line, where it begins, text
        of_part: list[list[int]] = []
        for line, (source, its_ids) in enumerate(zip(texts, ids, strict=True)):
            if len(its_ids) <= self._longest_line():
                if its_ids:
                    parts.append((line, 0, source))
                    of_part.append(its_ids)
                continue
            for begin, text in self._split(source):
                parts.append((line, begin, text))
                of_part.append(self.src.encode(text))
        found = self._search_all(members, of_part, batch_size, n_best)
        # The one place where order is restored.
        of_line: list[list[Part]] = [[] for _ in lines]
        for (line, begin, text), hypotheses in zip(parts, found, strict=True):
            of_line[line].append(Part(text, hypotheses, begin))
        for source, its_parts in zip(lines, of_line, strict=True):
            yield self._join(source, its_parts, n_best)

    def _search_all(
        self, members: list[Inference], ids: list[list[int]], batch_size: int, n_best: int
    ) -> list[list[Hypothesis]]:
        """Search for all sources, those of a length together."""
        found: list[list[Hypothesis]] = [[] for _ in ids]
        were_training = [model.training for model in self.models]
        for model in self.models:
            model.eval()

        def search(batch: list[int]) -> list[list[Hypothesis]]:
            return self._search(members, [ids[part] for part in batch], n_best)

        batches = self._batches(ids, batch_size)
        for batch, hypotheses in zip(batches, self._each(search, batches), strict=True):
            for part, its_own in zip(batch, hypotheses, strict=True):
                found[part] = its_own
        for model, training in zip(self.models, were_training, strict=True):
            model.train(training)
        return found

    def _batches(self, ids: list[list[int]], batch_size: int) -> list[list[int]]:
        """The sources by number, those of a length together, the longest first."""
        order = sorted(range(len(ids)), key=lambda part: -len(ids[part]))
        # As many batches as there are cores, if they are not too small to be worth it.
        cores = self._cores()
        batch_size = min(batch_size, max(-(-len(order) // cores), _LEAST_SHARE))
        batches, start = [], 0
        while start < len(order):
            # A wide beam, a long source or a large vocabulary makes the batch smaller.
            row = max(len(self.trg), len(ids[order[start]]) * self.model.decoder.hidden)
            fits = max(1, _MOST_NUMBERS // (row * self.search.beam * cores))
            batches.append(order[start : start + min(batch_size, fits)])
            start += len(batches[-1])
        return batches

    def _each(
        self, search: Callable[[list[int]], list[list[Hypothesis]]], batches: list[list[int]]
    ) -> Iterator[list[list[Hypothesis]]]:
        """Search all batches, in order; on a CPU each on a core of its own.

        A step of the search is many small operations: two cores at one of them spend much
        of their time meeting, two cores at two batches none. PyTorch's number of threads is
        that of the whole process and 1 meanwhile.
        """
        threads = min(self._cores(), len(batches))
        if threads < 2:
            yield from map(search, batches)
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # of each operation; new threads take it over
        try:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(search, batches)
        finally:
            torch.set_num_threads(before)

    def _cores(self) -> int:
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def _search(
        self, members: list[Inference], sources: list[list[int]], n_best: int
    ) -> list[list[Hypothesis]]:
        src, src_mask = pad_sources(sources)
        limits = torch.tensor([max_length(len(ids), self.search.max_ratio) for ids in sources])
        found = beam_search(
            members,
            src.to(self.device),
            src_mask.to(self.device),
            beam=self.search.beam,
            alpha=self.search.length_penalty,
            beta=self.search.coverage_penalty,
            no_repeat=self.search.no_repeat_ngram,
            max_lengths=limits,
            n_best=n_best,
        )
        if not all(found):
            raise _no_probabilities()
        return found

    def _join(self, source: str, parts: list[Part], n_best: int) -> Translation:
        if not parts:
            return Translation(source, "")
        # Score, log-probability, and which hypothesis of each part, the last one first: texts
        # are put together once, or a line of a megabyte would be copied for each part.
        found: list[tuple[float, float, _Chosen]] = [(0.0, 0.0, None)]
        for part in parts:
            longer = (
                (score + one.score, log_prob + one.log_prob, (chosen, one))
                for score, log_prob, chosen in found
                for one in part.hypotheses
            )
            found = heapq.nlargest(n_best, longer, key=lambda candidate: candidate[0])
        candidates = [Candidate(self._text(chosen), score, log) for score, log, chosen in found]
        return Translation(source, candidates[0].text, candidates[0].score, parts, candidates)

    def _text(self, chosen: _Chosen) -> str:
        texts = []
        while chosen is not None:
            chosen, hypothesis = chosen
            texts.append(self.trg.decode(hypothesis.ids))
        return " ".join(filter(None, reversed(texts)))

    def _count(self, text: str) -> int:
        return len(self.src.encode(text))

    def _longest_line(self) -> int:
        """Pieces up to which a line is translated in one search, whatever it holds."""
        return self.max_pieces if self.usual is None else min(self.max_pieces, self.usual.typical)

    def _split(self, line: str) -> Iterator[tuple[int, str]]:
        """Parts of a long line, and where they begin; blank ones left out.

        Sentences are put together up to the typical length only: a network trained on
        single sentences translates the first of a few and stops (Tatoeba's dev sentences,
        two to a line: 6 BLEU together, 23 one by one). A sentence stays whole up to
        `max_pieces`.
        """
        begin = 0
        for part in self._split_at(line, [_SENTENCE_END, _CLAUSE_END], self._longest_line()):
            if self._count(part):
                yield begin, part
            begin += len(part)

    def _split_at(self, text: str, patterns: list[re.Pattern[str]], packed: int) -> Iterator[str]:
        """Stretches that the first pattern finds, several together up to `packed` pieces."""
        if not patterns:
            yield from self._split_hard(text)
            return
        current, room = "", packed
        for match in patterns[0].finditer(text):
            stretch = match.group()
            count = self._count(stretch)
            if count <= room:
                current, room = current + stretch, room - count
                continue
            if current:
                yield current
            current, room = stretch, packed - count
            if count > self.max_pieces:
                yield from self._split_at(stretch, patterns[1:], self.max_pieces)
                current, room = "", packed
        if current:
            yield current

    def _split_hard(self, text: str) -> Iterator[str]:
        """Cut where nothing marks an end, so that any text gets through."""
        begin = 0
        while begin < len(text):
            length = min(4 * self.max_pieces, len(text) - begin)
            while (
                length > 1
                and (count := self._count(text[begin : begin + length])) > self.max_pieces
            ):
                length = max(1, min(length - 1, length * self.max_pieces // count))
            yield text[begin : begin + length]
            begin += length


def _no_probabilities() -> NmtError:
    return NmtError(
        "the network gives no probabilities: its weights hold NaN or infinite numbers",
        "its training has diverged: lower train.learning_rate and train again",
    )


def usual_lengths(run: Run) -> UsualLengths | None:
    """The lengths of a run's dev set; None if it has no pair with text on both sides.

    A run that was sent on without its dev set has none either.
    """
    if not all((run.folder / f"dev.{side}.txt").exists() for side in ("src", "trg")):
        return None
    sides = ((run.src, run.text("dev", "src")), (run.trg, run.text("dev", "trg")))
    if len(sides[0][1]) != len(sides[1][1]):
        logger.warning(
            f"{run.folder}: dev.src.txt and dev.trg.txt are not of equal length; not used"
        )
        return None
    apart = max(1, len(sides[0][1]) // _DEV_LINES)  # the first ones alone would be the easy ones
    src, trg = (map(len, side.encode_all(texts[::apart])) for side, texts in sides)
    pairs = [pair for pair in zip(src, trg, strict=True) if all(pair)]
    return UsualLengths.of(*zip(*pairs, strict=True)) if pairs else None


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
