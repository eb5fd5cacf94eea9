"""The gradient does not depend on micro-batches, blocks, workers or prefetching."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.data.batches import Batch, make_batch
from nmt.device import is_out_of_memory
from nmt.distributed import Workers
from nmt.train import gradient as gradient_module
from nmt.train.gradient import GradientComputer
from nmt.train.update import update_seed
from tests.helpers.small import gradients, random_corpus, small_model

CPU = torch.device("cpu")
BATCH = np.arange(12)


def gradient(rank: int = 0, count: int = 1) -> GradientComputer:
    # Outside a process group: the shares of workers are computed one after the other.
    computer = GradientComputer(small_model().double(), random_corpus(12), 0.1, CPU, Workers())
    computer.workers = Workers(rank, count)
    return computer


def prefetching(threads: int) -> GradientComputer:
    return GradientComputer(
        small_model().double(), random_corpus(12), 0.1, CPU, Workers(), prefetch_threads=threads
    )


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    # The loss is computed in float32 whatever the network's own precision.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("max_cells", [200, 50, 1])
def test_any_number_of_parts_gives_the_same_gradient(max_cells: int) -> None:
    whole = gradient()
    loss, tokens, *_ = whole.compute([BATCH], 1)
    parts = gradient()
    parts.max_cells = max_cells
    assert len(parts.split([BATCH])) > 1
    loss_in_parts, tokens_in_parts, *_ = parts.compute([BATCH], 1)
    assert tokens == tokens_in_parts
    torch.testing.assert_close(loss, loss_in_parts)
    close(gradients(parts.model), gradients(whole.model))


def _sum(shares: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of what the workers computed; one without a share has computed nothing."""
    names = {name for share in shares for name in share}
    return {name: sum(share[name] for share in shares if name in share) for name in names}  # type: ignore[misc]


BLOCKS = [np.arange(5), np.arange(5, 6), np.arange(6, 12)]


@pytest.mark.parametrize("count", [1, 2, 3, 16])
@pytest.mark.parametrize("max_cells", [float("inf"), 50])
def test_blocks_and_workers_give_the_gradient_of_the_whole_batch(
    count: int, max_cells: float
) -> None:
    whole = gradient()
    loss, tokens, *_ = whole.compute([BATCH], 1)
    shares, results = [], []
    for rank in range(count):
        share = gradient(rank, count)
        share.max_cells = max_cells
        results.append(share.compute(BLOCKS, 1, local=True))
        shares.append(gradients(share.model))
    assert {result.total_tokens for result in results} == {tokens}
    assert sum(one.tokens for one in results) == tokens
    assert all(one.cells > 0 for one in results) == (count <= len(BATCH))
    torch.testing.assert_close(sum(one.loss for one in results), loss)
    total = _sum(shares)
    close(total, gradients(whole.model))


@pytest.mark.parametrize("count", [2, 3, 16])
def test_sum_over_workers_is_the_gradient_of_the_whole_batch(count: int) -> None:
    whole = gradient()
    _, tokens, cells, _ = whole.compute([BATCH], 1)
    shares, seen = [], 0
    for rank in range(count):
        share = gradient(rank, count)
        seen += share.compute([BATCH], 1, local=True)[1]
        shares.append(gradients(share.model))
    assert seen == tokens
    assert cells >= tokens
    total = _sum(shares)
    close(total, gradients(whole.model))


def test_every_sentence_is_in_one_part_of_one_worker() -> None:
    sentences = []
    for rank in range(3):
        share = gradient(rank, 3)
        share.max_cells = 100
        sentences += [int(s) for part in share.split([BATCH]) for s in part]
    assert sorted(sentences) == list(BATCH)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("could not create a primitive"), True),
        (MemoryError(), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def testupdate_seeds_differ_by_seed_update_and_worker() -> None:
    numbers = {update_seed(s, n, r) for s in range(3) for n in range(50) for r in range(3)}
    assert len(numbers) == 450
    assert update_seed(1, 2, 0) == update_seed(1, 2, 0)
    assert all(0 <= number < 2**63 for number in numbers)


def test_batches_gathered_ahead_are_used() -> None:
    expected = gradient()
    expected.compute([BATCH], 1)
    ahead = GradientComputer(
        small_model().double(), random_corpus(12), 0.1, CPU, Workers(), prefetch_threads=2
    )
    blocks = [BATCH]
    ahead.prefetch(blocks, 7)
    ahead.corpus = random_corpus(12, seed=2)  # would be another gradient, were it gathered now
    ahead.compute(blocks, 1, 7)
    close(gradients(ahead.model), gradients(expected.model))
    ahead.close()


@pytest.mark.parametrize("change", ["blocks", "max_cells"])
def test_what_was_gathered_for_another_batch_is_not_used(change: str) -> None:
    ahead = GradientComputer(
        small_model().double(), random_corpus(12), 0.1, CPU, Workers(), prefetch_threads=2
    )
    blocks = [BATCH]
    ahead.prefetch(blocks, 7)
    ahead.prefetch([BATCH], 8)
    ahead._prefetched[7][1].result()
    expected = gradient()
    if change == "blocks":
        blocks = [BATCH[:3]]
    else:
        ahead.max_cells = 50
    expected.compute(blocks, 1)
    ahead.compute(blocks, 1, 7)
    close(gradients(ahead.model), gradients(expected.model))
    assert ahead._prefetched == {}  # training is elsewhere
    ahead.close()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_out_of_memory_while_gathering_ahead_is_retried_in_parts(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [error]

    def failing_once(*arguments: Any) -> Batch:
        if failures:
            raise failures.pop()
        return make_batch(*arguments)

    monkeypatch.setattr(gradient_module, "make_batch", failing_once)
    ahead = GradientComputer(
        small_model().double(), random_corpus(12), 0.1, CPU, Workers(), prefetch_threads=1
    )
    blocks = [BATCH]
    ahead.prefetch(blocks, 1)
    ahead.compute(blocks, 1, 1)
    expected = gradient()
    expected.compute(blocks, 1)
    close(gradients(ahead.model), gradients(expected.model))


def test_closing_cancels_pending_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, resume = [], threading.Event()

    def blocking(*arguments: Any) -> Batch:
        begun.append(1)
        resume.wait(60)
        return make_batch(*arguments)

    monkeypatch.setattr(gradient_module, "make_batch", blocking)
    ahead = GradientComputer(
        small_model(), random_corpus(12), 0.1, CPU, Workers(), prefetch_threads=1
    )
    for number in range(4):
        ahead.prefetch([BATCH], number)
    ahead.close()
    resume.set()
    assert all(future.cancelled() for _, future in list(ahead._prefetched.values())[1:])
    assert len(begun) <= 1
