"""The gradient of one update: a batch in as many parts as memory asks for."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nmt.data.batches import (
    Batch,
    Blocks,
    Indices,
    Lengths,
    attention_cells,
    make_batch,
    target_tokens,
)
from nmt.data.packed import PackedSet
from nmt.device import is_out_of_memory
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.train.cuda_graphs import RecordedGradient, Recorder
from nmt.train.loss import batch_loss

logger = logging.getLogger(__name__)

_SOON = 1000  # updates


class Computed(NamedTuple):
    """What came of a batch, besides its gradient.

    Attributes:
        loss: without smoothing, summed over this worker's tokens, a scalar on the device.
        tokens: this worker's target tokens, EOS counted.
        cells: that they take with their padding.
        everybodys_tokens: of all workers.
    """

    loss: Tensor
    tokens: int
    cells: int
    everybodys_tokens: int


class Gradient:
    """Computes gradients of the loss in nats per target token of a whole update.

    A batch that does not fit into memory is cut in halves until it does, and all later
    batches of its size at once. The parts, and those of all workers, are divided by the
    same number of tokens, so that cutting changes nothing but the rounding.

    Args:
        model: the network.
        corpus: to take sentences from.
        label_smoothing: of the loss.
        device: where to compute.
        workers: each takes its share of every batch, and gradients are summed over them.
        precision: of products with weights.
        guided_alignment: weight of the alignment loss.
        recorder: records what a batch launches; None: everything is launched each time.
        look_ahead: threads that gather the batches expected next.
    """

    def __init__(
        self,
        model: Seq2Seq,
        corpus: PackedSet,
        label_smoothing: float,
        device: torch.device,
        workers: Workers,
        precision: torch.dtype = torch.float32,
        guided_alignment: float = 0.0,
        recorder: Recorder | None = None,
        look_ahead: int = 0,
    ) -> None:
        self.model, self.device, self.workers = model, device, workers
        self.use(corpus)
        self.most_cells = float("inf")  # largest part that is tried
        self.loss = SummedLoss(model, label_smoothing, guided_alignment, precision)
        self.recorded = None
        if recorder is not None:
            self.recorded = RecordedGradient(self.loss, list(model.parameters()), recorder)
        self._forgot_at = -math.inf  # the draw at which memory was full and parts not made smaller
        self._beside = ThreadPoolExecutor(look_ahead) if look_ahead else None
        self._expected: dict[int, tuple[Blocks, Future[_Gathered]]] = {}

    def use(self, corpus: PackedSet) -> None:
        """Take the sentences of the batches to come from `corpus`."""
        self.corpus, self.lengths = corpus, corpus.lengths

    def compute(self, blocks: Blocks, seed: int, draw: int = 0, *, alone: bool = False) -> Computed:
        """Set the gradients of this batch.

        Args:
            blocks: of the batch, all workers' shares together.
            seed: of dropout.
            draw: number of the update, the same for all workers.
            alone: leave the other workers' gradients out, to try something out.

        Raises:
            NmtError: a single sentence does not fit into memory.
        """
        gathered, failed = self._take(blocks, draw), False
        while (computed := self._compute(gathered, seed)) is None:
            sentences = gathered.sentences
            largest = max(gathered.parts, key=sentences.cells)
            # What is recorded may be what fills the memory. If it does so again soon, a part
            # that is launched and what is recorded of others don't fit side by side.
            again = draw - self._forgot_at < _SOON and len(largest) > 1
            if self.recorded is None or failed or again:
                self._smaller(sentences, largest)
                self._forgot_at = -math.inf
            else:
                self._forgot_at = draw
            failed = True
            if self.recorded is not None:
                self.recorded.forget()
            self._empty()
            gathered = self._gather(blocks)
        if not alone:
            self.workers.add_up([_gradient(parameter) for parameter in self.model.parameters()])
        return computed

    def _compute(self, gathered: _Gathered, seed: int) -> Computed | None:
        """This worker's part of `compute`; None if memory is too small for it."""
        try:
            torch.manual_seed(seed)
            return self._in_parts(gathered)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # What follows comes outside the handler: the error holds on to what filled the memory.
        return None

    def expect(self, blocks: Blocks, draw: int = 0) -> None:
        """Begin to gather what `compute` will be given, beside what is being computed."""
        if self._beside is not None and draw not in self._expected:
            gathered = self._beside.submit(self._gather, blocks, at_once=True)
            self._expected[draw] = blocks, gathered

    def clear(self) -> None:
        """Set all gradients to zero."""
        if self.recorded is not None:
            self.recorded.clear()
        else:
            self.model.zero_grad()

    def close(self) -> None:
        """Gather nothing more."""
        if self._beside is not None:
            self._beside.shutdown(wait=False, cancel_futures=True)

    def _take(self, blocks: Blocks, draw: int) -> _Gathered:
        """What was gathered beside, if it is this; else it is gathered now."""
        if draw in self._expected:
            of, future = self._expected.pop(draw)
            if of is blocks:
                gathered = _outcome(future)
                if gathered is not None and gathered.most_cells == self.most_cells:
                    return gathered
            # Training went back, or cuts its batches smaller.
            for _, stale in self._expected.values():
                stale.cancel()
            self._expected.clear()
        return self._gather(blocks)

    def _gather(self, blocks: Blocks, *, at_once: bool = False) -> _Gathered:
        sentences = _Sentences(self.corpus, self.lengths, blocks)
        most, parts = self.most_cells, self._parts(sentences)
        batches = (self._batch(sentences, part) for part in parts)
        return _Gathered(sentences, most, parts, iter(list(batches)) if at_once else batches)

    def _batch(self, sentences: _Sentences, part: Indices) -> Batch:
        batch = make_batch(sentences.corpus, part)
        return batch if self.recorded is None else self.recorded.ready(batch)

    def _in_parts(self, gathered: _Gathered) -> Computed:
        self.clear()
        # Every worker knows the whole batch, so nobody has to ask for the number of tokens.
        total = gathered.sentences.trg_tokens()
        plain = torch.zeros((), device=self.device)
        tokens = cells = 0
        for batch in gathered.batches:
            if self.recorded is not None:
                part_plain = self.recorded.add(batch, 1 / total)
            else:
                smoothed, part_plain = self.loss(batch.to(self.device))
                torch.autograd.backward(smoothed / total)
            plain += part_plain
            tokens += batch.trg_tokens
            cells += batch.trg_out.numel()
        return Computed(plain, tokens, cells, total)

    def _parts(self, sentences: _Sentences) -> list[Indices]:
        """This worker's share, cut to parts that fit; none if there are fewer sentences."""
        own, before = [], 0
        for block in sentences.blocks:  # dealt on from one to the next, or the last get none
            first = (self.workers.rank - before) % self.workers.count
            own.append(block[first :: self.workers.count])
            before += len(block)
        waiting = [part for part in reversed(own) if len(part)]
        parts = []
        while waiting:
            part = waiting.pop()
            if len(part) > 1 and sentences.cells(part) > self.most_cells:
                waiting += [part[1::2], part[::2]]
            else:
                parts.append(part)
        return parts

    def _smaller(self, sentences: _Sentences, part: Indices) -> None:
        if len(part) == 1:
            src, trg = (int(lengths[part[0]]) for lengths in sentences.lengths)
            raise NmtError(
                f"memory is too small for a single sentence pair of {src} and {trg} pieces",
                "lower data.clean.max_pieces and prepare again, or make the model smaller",
            )
        self.most_cells = sentences.cells(part) / 2
        logger.warning(
            f"a batch of {len(part)} sentences does not fit into memory: batches this large "
            "are computed in parts from now on"
        )

    def _empty(self) -> None:
        """Give back what is cached of a device's memory."""
        self.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Sentences:
    """The blocks of a batch, by sentence number, and all lengths in the corpus."""

    corpus: PackedSet
    lengths: Lengths
    blocks: Blocks

    def trg_tokens(self) -> int:
        """EOS counted."""
        return sum(target_tokens(self.lengths, block) for block in self.blocks)

    def cells(self, part: Indices) -> int:
        """Of a part; see `nmt.data.batches.cells`."""
        return attention_cells(self.lengths, part)


@dataclass(frozen=True)
class _Gathered:
    """A batch in parts, as `Gradient._parts` cut it when a part had at most `most_cells`."""

    sentences: _Sentences
    most_cells: float
    parts: list[Indices]
    batches: Iterator[Batch]


def _outcome(gathering: Future[_Gathered]) -> _Gathered | None:
    """What was gathered; None if memory was too small for it, and piece by piece may be enough."""
    try:
        return gathering.result()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


@dataclass(frozen=True)
class SummedLoss:
    """`batch_loss` in a precision.

    Attributes:
        model: the network.
        label_smoothing: of the loss.
        guided_alignment: weight of what the batch's alignment teaches.
        precision: of products with weights.
    """

    model: Seq2Seq
    label_smoothing: float
    guided_alignment: float
    precision: torch.dtype

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimised, with its graph, and the plain loss, summed over a batch."""
        rounds = self.precision != torch.float32
        with torch.autocast(batch.src.device.type, self.precision, enabled=rounds):
            loss = batch_loss(self.model, batch, self.label_smoothing, self.guided_alignment)
        return loss.smoothed, loss.plain


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Of a parameter; zeros if nothing was computed with it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
