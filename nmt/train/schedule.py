"""The learning rate at each update."""

from __future__ import annotations

import math

from nmt.config import TrainConfig

_FLOOR = 0.01  # linear and cosine end at this share of the highest rate


def learning_rate(config: TrainConfig, update: int, total: int) -> float:
    """Rate for update number `update` (from 1) of `total` planned.

    Linear growth over the warm-up, then by `config.schedule`:

    - ``constant``: the highest rate throughout;
    - ``inverse_sqrt``: falls as 1/sqrt(update) (Vaswani et al. 2017, section 5.3);
    - ``linear``, ``cosine``: the highest rate until a share `config.hold` of all
      updates, then down to a hundredth of it at the last.
    """
    peak, warmup = config.learning_rate, config.warmup
    if update <= warmup:
        return peak * update / warmup
    if config.schedule == "constant":
        return peak
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / update)
    begin = max(warmup, config.hold * total)
    done = min(1.0, max(0.0, (update - begin) / max(1.0, total - begin)))
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (_FLOOR + (1 - _FLOOR) * left)
