"""Gradient accumulation, with automatic micro-batching when memory is full."""

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
    attention_cells,
    make_batch,
    target_tokens,
)
from nmt.data.packed import PackedSet
from nmt.device import is_out_of_memory
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.train.cuda_graphs import CapturedGradient, GraphPool
from nmt.train.loss import batch_loss

logger = logging.getLogger(__name__)

_RECENT = 1000  # updates


class BatchResult(NamedTuple):
    """Statistics of a batch, besides its gradient.

    Attributes:
        loss: without label smoothing, summed over this worker's tokens, a device scalar.
        tokens: target tokens of this worker, EOS included.
        cells: the same with padding.
        total_tokens: target tokens of all workers.
    """

    loss: Tensor
    tokens: int
    cells: int
    total_tokens: int


class GradientComputer:
    """Compute gradients of the mean loss per target token of a whole update.

    A batch that does not fit into memory is halved until it fits, and so are later batches of
    its size. The parts of all workers are divided by the same number of tokens, so splitting
    changes only the rounding.

    Args:
        model: the model.
        corpus: the training pairs.
        label_smoothing: of the loss.
        device: of the model.
        workers: each takes its share of a batch; the gradients are summed over them.
        precision: of matrix products with weights.
        guided_alignment: weight of the alignment loss.
        pool: captures CUDA graphs; None to launch kernels one by one.
        prefetch_threads: threads that gather the next batches; 0 for none.

    Attributes:
        max_cells: largest number of attention cells of a part.
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
        pool: GraphPool | None = None,
        prefetch_threads: int = 0,
    ) -> None:
        self.model, self.device, self.workers = model, device, workers
        self.use(corpus)
        self.max_cells = float("inf")
        self.loss = ModelLoss(model, label_smoothing, guided_alignment, precision)
        self.captured = None
        if pool is not None:
            self.captured = CapturedGradient(self.loss, list(model.parameters()), pool)
        self._reset_at = -math.inf  # update number of the last reset of the CUDA graphs
        self._threads = ThreadPoolExecutor(prefetch_threads) if prefetch_threads else None
        self._prefetched: dict[int, tuple[Blocks, Future[_Parts]]] = {}

    def use(self, corpus: PackedSet) -> None:
        """Take the sentences of the following batches from `corpus`."""
        self.corpus, self.lengths = corpus, corpus.lengths

    def compute(
        self, blocks: Blocks, seed: int, number: int = 0, *, local: bool = False
    ) -> BatchResult:
        """Set the gradients of a batch.

        Args:
            blocks: of all workers together.
            seed: of dropout.
            number: of the update, the same on all workers.
            local: do not sum the gradients over the workers.

        Raises:
            NmtError: a single sentence pair does not fit into memory.
        """
        parts, failed = self._take(blocks, number), False
        while (result := self._compute(parts, seed)) is None:
            largest = max(parts.sentences, key=self._cells)
            # Free the CUDA graphs first: they may fill the memory. If that was done recently,
            # graphs and a batch of this size do not fit together.
            recent = number - self._reset_at < _RECENT and len(largest) > 1
            if self.captured is None or failed or recent:
                self._reduce_max_cells(largest)
                self._reset_at = -math.inf
            else:
                self._reset_at = number
            failed = True
            if self.captured is not None:
                self.captured.reset()
            self._free_memory()
            parts = self._gather(blocks)
        if not local:
            self.workers.all_reduce([_gradient(parameter) for parameter in self.model.parameters()])
        return result

    def _compute(self, parts: _Parts, seed: int) -> BatchResult | None:
        """Compute this worker's share; return None if it is out of memory."""
        try:
            torch.manual_seed(seed)
            return self._accumulate(parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Return outside the handler: the exception references the tensors that fill the memory.
        return None

    def prefetch(self, blocks: Blocks, number: int = 0) -> None:
        """Gather the batch of a later `compute` in a thread."""
        if self._threads is not None and number not in self._prefetched:
            future = self._threads.submit(self._gather, blocks, lazily=False)
            self._prefetched[number] = blocks, future

    def zero(self) -> None:
        """Set all gradients to zero."""
        if self.captured is not None:
            self.captured.zero()
        else:
            self.model.zero_grad()

    def close(self) -> None:
        """Cancel all prefetching."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self, blocks: Blocks, number: int) -> _Parts:
        """Return the batch, prefetched or gathered now."""
        if number in self._prefetched:
            expected, future = self._prefetched.pop(number)
            if expected is blocks:
                parts = _result_if_fits(future)
                if parts is not None and parts.max_cells == self.max_cells:
                    return parts
            # After a rollback or a smaller `max_cells`, what was prefetched is useless.
            for _, obsolete in self._prefetched.values():
                obsolete.cancel()
            self._prefetched.clear()
        return self._gather(blocks)

    def _gather(self, blocks: Blocks, *, lazily: bool = True) -> _Parts:
        max_cells, sentences = self.max_cells, self.split(blocks)
        batches = (self._batch(part) for part in sentences)
        # Every worker has the whole plan, so the total needs no communication.
        total = sum(target_tokens(self.lengths, block) for block in blocks)
        return _Parts(sentences, total, max_cells, batches if lazily else iter(list(batches)))

    def _batch(self, part: Indices) -> Batch:
        batch = make_batch(self.corpus, part)
        return batch if self.captured is None else self.captured.prepare(batch)

    def _accumulate(self, parts: _Parts) -> BatchResult:
        self.zero()
        loss = torch.zeros((), device=self.device)
        tokens = cells = 0
        for batch in parts.batches:
            if self.captured is not None:
                plain = self.captured.accumulate(batch, 1 / parts.total_tokens)
            else:
                smoothed, plain = self.loss(batch.to(self.device))
                torch.autograd.backward(smoothed / parts.total_tokens)
            loss += plain
            tokens += batch.trg_tokens
            cells += batch.trg_out.numel()
        return BatchResult(loss, tokens, cells, parts.total_tokens)

    def split(self, blocks: Blocks) -> list[Indices]:
        """Return this worker's sentences in parts of at most `max_cells`; may be empty."""
        shares, before = [], 0
        for block in blocks:  # dealt round-robin across blocks, so that shares differ by one
            first = (self.workers.rank - before) % self.workers.count
            shares.append(block[first :: self.workers.count])
            before += len(block)
        stack = [share for share in reversed(shares) if len(share)]
        parts = []
        while stack:
            part = stack.pop()
            if len(part) > 1 and self._cells(part) > self.max_cells:
                stack += [part[1::2], part[::2]]
            else:
                parts.append(part)
        return parts

    def _cells(self, part: Indices) -> int:
        return attention_cells(self.lengths, part)

    def _reduce_max_cells(self, part: Indices) -> None:
        if len(part) == 1:
            src, trg = (int(lengths[part[0]]) for lengths in self.lengths)
            raise NmtError(
                f"out of memory for a single sentence pair of {src} and {trg} pieces",
                "lower data.clean.max_pieces and prepare again, or make the model smaller",
            )
        self.max_cells = self._cells(part) / 2
        logger.warning(
            f"a batch of {len(part)} sentences does not fit into memory: batches of this size "
            "are computed in parts from now on"
        )

    def _free_memory(self) -> None:
        self.zero()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Parts:
    """A worker's share of a batch, split into micro-batches.

    Attributes:
        sentences: sentence numbers of each part.
        total_tokens: target tokens of all workers.
        max_cells: the limit that the parts were split for.
        batches: the parts as tensors; consumed once.
    """

    sentences: list[Indices]
    total_tokens: int
    max_cells: float
    batches: Iterator[Batch]


def _result_if_fits(future: Future[_Parts]) -> _Parts | None:
    """Return the prefetched parts; None if memory was too small for all of them at once."""
    try:
        return future.result()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


@dataclass(frozen=True)
class ModelLoss:
    """`batch_loss` of a model under autocast.

    Attributes:
        model: the model.
        label_smoothing: of the loss.
        guided_alignment: weight of the alignment loss.
        precision: of matrix products with weights.
    """

    model: Seq2Seq
    label_smoothing: float
    guided_alignment: float
    precision: torch.dtype

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the smoothed loss with its autograd graph and the plain loss, both summed."""
        autocast = self.precision != torch.float32
        with torch.autocast(batch.src.device.type, self.precision, enabled=autocast):
            loss = batch_loss(self.model, batch, self.label_smoothing, self.guided_alignment)
        return loss.smoothed, loss.plain


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient of a parameter; zeros if it was not used."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
