"""CUDA graphs on a CPU, where the function runs again: buckets and padding change nothing."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.config.schema import TrainConfig
from nmt.data.batches import Batch, make_batch
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.symbols import PAD
from nmt.train.cuda_graphs import (
    CapturedGradient,
    GraphPool,
    bucket_sizes,
    pad_to_bucket,
    uses_cuda_graphs,
)
from nmt.train.gradient import GradientComputer, ModelLoss
from nmt.train.optimizer import Optimizer
from tests.helpers.small import align_to_last, gradients, random_corpus, small_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("max_cells", [float("inf"), 50])
def test_recorded_gradient_is_the_gradient(max_cells: float) -> None:
    sizes = [np.arange(12), np.arange(3), np.arange(3, 12), np.arange(5, 6), np.arange(3)]
    network = small_model().double()
    launched = GradientComputer(network, random_corpus(12), 0.1, CPU, Workers())
    recorded = GradientComputer(
        copy.deepcopy(network), random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU)
    )
    launched.max_cells = recorded.max_cells = max_cells
    for batch in sizes:
        plain, replayed = launched.compute([batch], 1), recorded.compute([batch], 1)
        assert plain.tokens == replayed.tokens == replayed.total_tokens
        assert replayed.cells >= plain.cells
        # The loss is computed in float32 whatever the network's own precision.
        torch.testing.assert_close(plain.loss, replayed.loss, check_dtype=False)
        torch.testing.assert_close(
            gradients(recorded.model), gradients(launched.model), rtol=1e-5, atol=1e-7
        )


def captured_gradient(model: Seq2Seq) -> GradientComputer:
    return GradientComputer(model, random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU))


class Watched(GraphPool):
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        super().__init__(CPU)
        self.done: list[str] = []

    def warm_up(self, function: Callable[[], None]) -> None:
        self.done.append("launched")
        super().warm_up(function)

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        self.done.append("recorded")
        return super().capture(function)


def recorded_gradient(pool: GraphPool, max_buckets: int = 2) -> CapturedGradient:
    network = small_model()
    loss = ModelLoss(network, 0.1, 0.0, torch.float32)
    return CapturedGradient(loss, list(network.parameters()), pool, max_buckets)


def some(sentences: int) -> Batch:
    return pad_to_bucket(make_batch(random_corpus(12), np.arange(sentences)))


def test_a_bucket_is_launched_once_and_recorded_when_it_comes_again() -> None:
    watched = Watched()
    gradient = recorded_gradient(watched)
    few, many = some(2), some(12)
    for batch in (few, few, few, many, few):
        gradient.accumulate(batch, 1.0)
    assert watched.done == ["launched", "recorded", "launched"]
    gradient.accumulate(some(6), 1.0)  # the third: `many` goes
    gradient.accumulate(few, 1.0)
    gradient.accumulate(many, 1.0)
    assert watched.done == ["launched", "recorded", *["launched"] * 3]
    gradient.reset()
    gradient.accumulate(many, 1.0)
    assert watched.done == ["launched", "recorded", *["launched"] * 4]


def test_what_is_forgotten_is_gone_at_once() -> None:
    gradient = recorded_gradient(GraphPool(CPU))
    for batch in (some(2), some(2), some(12)):
        gradient.accumulate(batch, 1.0)
    buckets = [weakref.ref(bucket) for bucket in gradient.buckets.values()]
    gc.disable()  # so that only reference counts free the buckets
    try:
        gradient.accumulate(some(6), 1.0)
        assert [bucket() is None for bucket in buckets] == [True, False]
        gradient.reset()
        assert all(bucket() is None for bucket in buckets)
    finally:
        gc.enable()


def test_a_batch_that_is_no_number_does_not_spoil_the_next() -> None:
    network = small_model()
    recorded = GradientComputer(
        network, random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU)
    )
    recorded.compute([np.arange(12)], 1)
    good = gradients(network)
    kept = network.decoder.output_bias.detach().clone()
    network.decoder.output_bias.data.fill_(torch.nan)
    recorded.compute([np.arange(12)], 1)
    assert gradients(network)["decoder.output_bias"].isnan().any()
    network.decoder.output_bias.data.copy_(kept)
    recorded.compute([np.arange(12)], 1)
    torch.testing.assert_close(gradients(network), good)


def test_widened_batch_learns_nothing_from_its_padding() -> None:
    batch = make_batch(align_to_last(random_corpus(12)), np.arange(3))
    (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
    wide = batch.padded_to(rows + 2, src_len + 2, trg_len + 1)
    assert wide.src.shape == (rows + 2, src_len + 2)
    assert wide.trg_in.shape == wide.trg_out.shape == (rows + 2, trg_len + 1)
    assert batch.alignment is not None
    assert wide.alignment is not None
    assert wide.alignment.shape == (rows + 2, trg_len + 1, src_len + 2)
    assert wide.alignment.sum() == batch.alignment.sum()
    assert (wide.trg_out[rows:] == PAD).all()
    assert wide.src_mask[rows:].sum(dim=1).tolist() == [1, 1]  # attention must see something
    assert wide.trg_tokens == batch.trg_tokens


@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 31, 100, 1638])
def test_bucket_sizes_are_few_and_near(number: int) -> None:
    rows, src_len, trg_len = bucket_sizes(number, number, number)
    assert number <= rows <= number * 9 / 8 + 1
    assert number <= src_len == trg_len <= number * 5 / 4 + 1
    assert bucket_sizes(rows, src_len, trg_len) == (rows, src_len, trg_len)


def test_few_buckets_hold_all_lengths() -> None:
    assert len({bucket_sizes(n, 1, 1)[0] for n in range(1, 1025)}) <= 8 * 8 + 8
    assert len({bucket_sizes(1, n, 1)[1] for n in range(1, 1025)}) <= 4 * 9 + 4


def test_large_batches_are_padded_less() -> None:
    assert bucket_sizes(101, 21, 21) == (104, 24, 24)
    assert bucket_sizes(1001, 21, 21) == (1024, 22, 22)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_recorded_steps_are_the_steps(ema: float) -> None:
    config = TrainConfig(ema=ema, weight_decay=0.1, clip=0.5)
    results: list[dict[str, Tensor]] = []
    for pool in (None, GraphPool(CPU)):
        network = small_model()
        averaged = copy.deepcopy(network) if ema else network
        step = Optimizer(network, averaged, config, pool)
        gradient = GradientComputer(network, random_corpus(12), 0.1, CPU, Workers(), pool=pool)
        norms = []
        for number in range(1, 5):
            gradient.compute([np.arange(4 + number)], number)
            norms.append(float(step(1e-2 / number, number)))
        named = {f"averaged.{name}": p for name, p in averaged.state_dict().items()}
        results.append({"norms": torch.tensor(norms), **network.state_dict(), **named})
    torch.testing.assert_close(*results)


def test_a_step_leaves_no_gradient() -> None:
    network = small_model()
    step = Optimizer(network, network, TrainConfig(ema=0), GraphPool(CPU))
    gradient = GradientComputer(
        network, random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU)
    )
    gradient.compute([np.arange(4)], 1)
    places = [p.grad.data_ptr() for p in network.parameters() if p.grad is not None]
    step(1e-2, 1)
    assert all(not p.grad.any() for p in network.parameters() if p.grad is not None)
    assert places == [p.grad.data_ptr() for p in network.parameters() if p.grad is not None]


def test_a_step_writes_where_a_recording_would() -> None:
    network = small_model()
    step = Optimizer(network, network, TrainConfig(ema=0), GraphPool(CPU))
    norm, moments = step(1e-2, 1), step.adamw.state[network.decoder.output_bias]["exp_avg"]
    gradient = GradientComputer(
        network, random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU)
    )
    gradient.compute([np.arange(4)], 1)
    assert step(1e-2, 2) is norm
    assert norm > 0
    assert moments.any()
    tensors = {
        "model": {name: t.clone() for name, t in network.state_dict().items()},
        "trainer": {name: t.clone() for name, t in step.state_dict().items()},
    }
    step(1e-2, 3)
    step.load(tensors, 7)
    state = step.adamw.state[network.decoder.output_bias]
    assert state["exp_avg"] is moments
    assert torch.equal(moments, tensors["trainer"]["exp_avg.decoder.output_bias"])
    assert float(state["step"]) == 7


class Failing(GraphPool):
    """A driver that fails to record, so many times."""

    def __init__(self, error: RuntimeError, times: int) -> None:
        super().__init__(CPU)
        self.error, self.times = error, times

    def _captured(self, function: Callable[[], None]) -> Callable[[], None]:
        self.times -= 1
        if self.times >= 0:
            raise self.error
        return super()._captured(function)


def test_a_driver_that_refuses_is_told_of_with_a_way_out() -> None:
    failing = Failing(RuntimeError("operation not permitted when stream is capturing\nmore"), 9)
    gradient = GradientComputer(small_model(), random_corpus(12), 0.1, CPU, Workers(), pool=failing)
    gradient.compute([np.arange(12)], 1)
    with pytest.raises(NmtError) as raised:
        gradient.compute([np.arange(12)], 1)
    assert (
        "cannot capture an update as a CUDA graph: operation not permitted when stream is capturing"
        in str(raised.value)
    )
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("set NMT_NO_CUDA_GRAPHS=1 in the environment")


@pytest.mark.parametrize(("times", "cut"), [(1, False), (2, False), (9, True)])
def test_memory_that_is_full_while_recording(
    times: int, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First what is cached goes, then what was recorded; smaller batches are the last resort."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    failing = Failing(torch.cuda.OutOfMemoryError("CUDA out of memory."), times)
    gradient = GradientComputer(small_model(), random_corpus(12), 0.1, CPU, Workers(), pool=failing)
    blocks = [np.arange(12)] * 2  # the second is recorded, or would be
    gradient.compute([blocks[0]], 1)
    whole = {name: 2 * each for name, each in gradients(gradient.model).items()}
    for _ in range(3):
        gradient.compute(blocks, 1)
    assert (gradient.max_cells < float("inf")) == cut
    halves = {name: each / 2 for name, each in whole.items()}
    torch.testing.assert_close(gradients(gradient.model), halves, rtol=1e-4, atol=1e-6)


def test_memory_that_is_full_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded and forgotten in turn would never be replayed."""
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    failing = Failing(torch.cuda.OutOfMemoryError("CUDA out of memory."), 0)
    gradient = GradientComputer(small_model(), random_corpus(12), 0.1, CPU, Workers(), pool=failing)
    cut = []
    for sentences in (12, 10, 8):
        failing.times = 2  # once more when the cache is empty
        gradient.compute([np.arange(sentences)] * 2, 1)
        cut.append(gradient.max_cells)
    assert cut[0] == float("inf") > cut[1] == cut[2]


def test_workers_shares_are_recorded_too() -> None:
    whole = GradientComputer(small_model(), random_corpus(12), 0.1, CPU, Workers())
    whole.compute([np.arange(12)], 1)
    total: dict[str, Tensor] = {}
    for rank in range(3):
        share = GradientComputer(
            small_model(), random_corpus(12), 0.1, CPU, Workers(), pool=GraphPool(CPU)
        )
        share.workers = Workers(rank, 3)
        share.compute([np.arange(12)], 1, local=True)
        for name, each in gradients(share.model).items():
            total[name] = total.get(name, torch.zeros(())) + each
    torch.testing.assert_close(total, gradients(whole.model), rtol=1e-4, atol=1e-6)


def test_launching_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.delenv("NMT_NO_CUDA_GRAPHS", raising=False)
    assert uses_cuda_graphs(cuda)
    assert not uses_cuda_graphs(CPU)
    monkeypatch.setenv("NMT_NO_CUDA_GRAPHS", "1")
    assert not uses_cuda_graphs(cuda)


def test_a_step_is_adams_on_the_clipped_gradient_and_the_average_follows() -> None:
    config = TrainConfig(ema=0.5, weight_decay=0.1, clip=0.5, adam_betas=(0.8, 0.95))
    network = small_model()
    averaged, twin = copy.deepcopy(network), copy.deepcopy(network)
    step = Optimizer(network, averaged, config, None)
    adam = torch.optim.AdamW(twin.parameters(), betas=config.adam_betas, weight_decay=0.1)
    expected = {name: p.detach().clone() for name, p in network.named_parameters()}
    norms = []
    for number in range(1, 13):
        # Adam does not see a factor that never changes, so clipping would not show.
        size = (1e-4, 1.0, 10.0)[number % 3]
        for p, q in zip(network.parameters(), twin.parameters(), strict=True):
            p.grad = size * torch.randn_like(p)
            q.grad = p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        for group in adam.param_groups:
            group["lr"] = 1e-2 / number
        adam.step()
        torch.testing.assert_close(step(1e-2 / number, number), norm)
        norms.append(float(norm))
        decay = min(0.5, (1 + number) / (10 + number))  # begins short, grows to what was asked
        for name, p in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    assert min(norms) < 0.5 < max(norms)  # some were clipped, some not
    torch.testing.assert_close(dict(network.named_parameters()), dict(twin.named_parameters()))
    torch.testing.assert_close(
        {name: p.detach() for name, p in averaged.named_parameters()}, expected
    )
