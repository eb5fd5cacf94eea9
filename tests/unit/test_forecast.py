from pathlib import Path

import numpy as np
import torch

from nmt.data.batches import Blocks, plan_epoch
from nmt.train.forecast import Forecast, make_forecast

LENGTHS = (np.array([3, 9, 4, 4, 2, 8, 30, 5]), np.array([4, 8, 3, 5, 2, 9, 25, 6]))


def test_largest_batch_is_tried_first(tmp_path: Path) -> None:
    plan = plan_epoch(*LENGTHS, 24, 1, 0, block_tokens=12)
    tried: list[Blocks] = []
    model = torch.nn.Linear(1000, 10)
    forecast = make_forecast(tried.append, plan, LENGTHS, model, tmp_path, copies=12)
    assert [6 in block for block in tried[0]] == [True, True]  # the long one, as a second block
    assert len(tried) == 4
    assert forecast.disk == 12 * 4 * 10_010  # float32
    assert forecast.memory > 0
    assert forecast.free_disk > 0


def test_text_is_no_longer_than_the_minutes_left() -> None:
    forecast = Forecast(60.0, 300 * 2**20, 5 * 2**20, 2**40)
    assert forecast.text(10, float("inf")) == (
        "forecast: 60 s an epoch, at most 10 min to go, validations not counted; "
        "memory 300 MiB, checkpoints 5 MiB"
    )
    assert "at most 4 min to go" in forecast.text(10, 240)
    assert "at most 2.0 h to go" in forecast.text(120, float("inf"))


def test_small_disk_is_warned_of() -> None:
    assert Forecast(1, 1, 5, 5).warning() is None
    assert Forecast(1, 1, 30 * 2**30, 2**30).warning() == (
        "the disk has 1,024 MiB free, checkpoints need up to 30 GiB"
    )
