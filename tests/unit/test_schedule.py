import math

import pytest

from nmt.config.schema import TrainConfig
from nmt.train.schedule import learning_rate, reason_to_stop
from nmt.train.state import TrainState

TOTAL = 1000


def config(**keys: object) -> TrainConfig:
    return TrainConfig(**{"learning_rate": 1e-2, "warmup": 100, "decay_start": 0.3, **keys})


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "inverse_sqrt"])
def test_warm_up_grows_in_equal_steps_to_the_highest_rate(schedule: str) -> None:
    rates = [learning_rate(config(schedule=schedule), n, TOTAL) for n in range(1, 101)]
    assert rates == pytest.approx([1e-4 * n for n in range(1, 101)])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "inverse_sqrt"])
def test_no_warm_up_begins_at_the_highest_rate(schedule: str) -> None:
    first = learning_rate(config(schedule=schedule, warmup=0), 1, TOTAL)
    assert first == pytest.approx(1e-2)


def test_constant_stays() -> None:
    assert learning_rate(config(schedule="constant"), 10**6, TOTAL) == 1e-2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_holds_then_ends_at_a_hundredth(schedule: str) -> None:
    rates = [learning_rate(config(schedule=schedule), n, TOTAL) for n in range(101, TOTAL + 1)]
    assert rates[0] == rates[199] == 1e-2  # update 300 is the last one held
    assert rates[200] < 1e-2
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.505e-2), ("cosine", 0.505e-2)])
def test_decay_is_half_done_half_way(schedule: str, half: float) -> None:
    assert learning_rate(config(schedule=schedule), 650, TOTAL) == pytest.approx(half)


def test_linear_and_cosine_differ_at_a_quarter() -> None:
    quarter = 300 + 700 // 4
    linear = learning_rate(config(schedule="linear"), quarter, TOTAL)
    cosine = learning_rate(config(schedule="cosine"), quarter, TOTAL)
    assert linear == pytest.approx(1e-2 * (0.01 + 0.99 * 0.75))
    assert cosine == pytest.approx(1e-2 * (0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2))


def test_past_the_plan_the_rate_stays_at_its_end() -> None:
    for schedule in ("linear", "cosine"):
        assert learning_rate(config(schedule=schedule), 5000, TOTAL) == pytest.approx(1e-4)


def test_inverse_square_root_halves_in_four_times_the_updates() -> None:
    rates = [learning_rate(config(schedule="inverse_sqrt"), n, TOTAL) for n in (100, 400, 1600)]
    assert rates == pytest.approx([1e-2, 5e-3, 2.5e-3])


def test_budget_of_minutes_follows_the_clock_and_not_the_updates() -> None:
    timed = config(schedule="linear", schedule_by="minutes", max_minutes=4)
    assert learning_rate(timed, 500, TOTAL, spent=0.3) == 1e-2
    assert learning_rate(timed, 101, TOTAL, spent=0.65) == pytest.approx(0.505e-2)
    assert learning_rate(timed, 400, TOTAL, spent=1.0) == pytest.approx(1e-4)
    assert learning_rate(timed, 50, TOTAL, spent=0.9) == pytest.approx(5e-3)  # still warming up


def test_budget_of_minutes_needs_minutes() -> None:
    with pytest.raises(ValueError, match=r"train\.schedule_by: minutes needs train\.max_minutes"):
        config(schedule_by="minutes")


@pytest.mark.parametrize(
    ("progress", "seconds", "reason"),
    [
        (TrainState(), 0, None),
        (TrainState(epoch=20), 0, "20 epochs are done"),
        (TrainState(epoch=19, update=500), 0, "500 updates are done"),
        (TrainState(validations_since_best=9), 0, None),
        (TrainState(validations_since_best=10), 0, "dev BLEU has not risen in 10 validations"),
        (TrainState(), 539, None),  # a tenth is kept for the first validation
        (TrainState(), 540, "10 minutes are over"),
        (TrainState(validation_seconds=10), 587, None),
        (TrainState(validation_seconds=10), 588, "10 minutes are over"),
    ],
)
def test_reasons_to_stop(progress: TrainState, seconds: float, reason: str | None) -> None:
    limits = config(epochs=20, max_updates=500, max_minutes=10, patience=10)
    assert reason_to_stop(limits, progress, seconds) == reason


def test_an_equal_dev_bleu_is_not_a_better_one() -> None:
    progress = TrainState()
    best = [progress.note_score(bleu) for bleu in (1.0, 1.0, 0.5, 1.5, 1.0)]
    assert best == [True, False, False, True, False]
    assert (progress.best_bleu, progress.validations_since_best) == (1.5, 1)
