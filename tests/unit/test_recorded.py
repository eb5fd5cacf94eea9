"""Recording, with running again in place of replaying: buckets and padding change nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nmt.batches import make_batch
from nmt.config import TrainConfig
from nmt.runtime import Workers
from nmt.symbols import PAD
from nmt.train.gradient import Gradient, SummedLoss
from nmt.train.recorded import RecordedGradient, Recorder, bucket_sizes
from nmt.train.step import Step
from tests.unit.test_loss import corpus, gradients, model

CPU = torch.device("cpu")


@pytest.mark.parametrize("most_cells", [float("inf"), 50])
def test_recorded_gradient_is_the_gradient(most_cells: float) -> None:
    sizes = [np.arange(12), np.arange(3), np.arange(3, 12), np.arange(5, 6), np.arange(3)]
    network = model().double()
    launched = Gradient(network, corpus(12), 0.1, CPU, Workers())
    recorded = Gradient(
        copy.deepcopy(network), corpus(12), 0.1, CPU, Workers(), recorder=Recorder(CPU)
    )
    launched.most_cells = recorded.most_cells = most_cells
    for batch in sizes:
        plain, found = launched.compute([batch], 1), recorded.compute([batch], 1)
        assert plain.tokens == found.tokens == found.everybodys_tokens
        assert found.cells >= plain.cells
        # The loss is computed in float32 whatever the network's own precision.
        torch.testing.assert_close(plain.loss, found.loss, check_dtype=False)
        torch.testing.assert_close(
            gradients(recorded.model), gradients(launched.model), rtol=1e-5, atol=1e-7
        )


def test_a_bucket_is_launched_once_and_recorded_when_it_comes_again() -> None:
    done: list[str] = []

    class Watched(Recorder):
        def run(self, function: object) -> None:
            done.append("launched")
            super().run(function)  # type: ignore[arg-type]

        def record(self, function: object) -> object:  # type: ignore[override]
            done.append("recorded")
            return super().record(function)  # type: ignore[arg-type]

    network = model()
    watched = RecordedGradient(
        SummedLoss(network, 0.1, 0.0, torch.float32), list(network.parameters()), Watched(CPU), 2
    )
    few, many = (make_batch(corpus(12), np.arange(n)) for n in (2, 12))
    for batch in (few, few, few, many, few):
        watched.add(batch, 1.0)
    assert done == ["launched", "recorded", "launched"]
    watched.add(make_batch(corpus(12), np.arange(6)), 1.0)  # the third: `many` goes
    watched.add(few, 1.0)
    watched.add(many, 1.0)
    assert done == ["launched", "recorded", "launched", "launched", "launched"]
    watched.forget()
    watched.add(few, 1.0)
    assert done[-1] == "launched"


def test_a_batch_that_is_no_number_does_not_spoil_the_next() -> None:
    network = model()
    recorded = Gradient(network, corpus(12), 0.1, CPU, Workers(), recorder=Recorder(CPU))
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
    def align(src: Any, _src_mask: Any, trg: Any, _trg_mask: Any) -> Any:
        return np.ones((*trg.shape, src.shape[1]), dtype=np.float32)

    batch = make_batch(corpus(12), np.arange(3), align)
    (rows, src_len), trg_len = batch.src.shape, batch.trg_out.shape[1]
    wide = batch.widened(rows + 2, src_len + 2, trg_len + 1)
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
    assert len({bucket_sizes(n, n, n)[0] for n in range(1, 1025)}) <= 8 * 8 + 8


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_recorded_steps_are_the_steps(ema: float) -> None:
    config = TrainConfig(ema=ema, weight_decay=0.1, clip=0.5)
    found: list[dict[str, Tensor]] = []
    for recorder in (None, Recorder(CPU)):
        network = model()
        averaged = copy.deepcopy(network) if ema else network
        step = Step(network, averaged, config, recorder)
        gradient = Gradient(network, corpus(12), 0.1, CPU, Workers(), recorder=recorder)
        norms = []
        for number in range(1, 5):
            gradient.compute([np.arange(4 + number)], number)
            norms.append(float(step(1e-2 / number, number)))
        named = {f"averaged.{name}": p for name, p in averaged.state_dict().items()}
        found.append({"norms": torch.tensor(norms), **network.state_dict(), **named})
    torch.testing.assert_close(*found)


def test_a_step_leaves_no_gradient() -> None:
    network = model()
    step = Step(network, network, TrainConfig(ema=0), Recorder(CPU))
    gradient = Gradient(network, corpus(12), 0.1, CPU, Workers(), recorder=Recorder(CPU))
    gradient.compute([np.arange(4)], 1)
    places = [p.grad.data_ptr() for p in network.parameters() if p.grad is not None]
    step(1e-2, 1)
    assert all(not p.grad.any() for p in network.parameters() if p.grad is not None)
    assert places == [p.grad.data_ptr() for p in network.parameters() if p.grad is not None]


class Refusing(Recorder):
    """A driver that can't record."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(CPU)
        self.error, self.asked = error, 0

    def _recorded(self, function: object) -> Any:
        del function
        self.asked += 1
        raise self.error


def test_where_recording_is_refused_it_goes_on_without_and_says_so_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusing = Refusing(RuntimeError("operation not permitted when stream is capturing\nmore"))
    network = model()
    gradient = Gradient(network, corpus(12), 0.1, CPU, Workers(), recorder=refusing)
    found = []
    for batch in [np.arange(12)] * 3 + [np.arange(2)] * 2:
        gradient.compute([batch], 1)
        found.append(gradients(network))
    torch.testing.assert_close(found[2], found[0])
    assert refusing.asked == 1
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "nothing is recorded" in said
    assert "not permitted when stream is capturing" in said


def test_memory_that_is_full_while_recording_makes_batches_smaller() -> None:
    refusing = Refusing(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    gradient = Gradient(model(), corpus(12), 0.1, CPU, Workers(), recorder=refusing)
    gradient.compute([np.arange(12)], 1)
    whole = gradients(gradient.model)
    gradient.compute([np.arange(12)], 1)  # the second time it is recorded, or would be
    assert gradient.most_cells < float("inf")
    torch.testing.assert_close(gradients(gradient.model), whole)
