"""The learning rate at each update, and when training ends."""

from __future__ import annotations

import math

from nmt.config.schema import TrainConfig
from nmt.train.state import TrainState

_FLOOR = 0.01  # linear and cosine end at this share of the highest rate


def learning_rate(
    config: TrainConfig, update: int, total: int, spent: float | None = None
) -> float:
    """Rate for update number `update` (from 1) of `total` planned.

    With `config.schedule_by` ``minutes``, `spent` is the share of `max_minutes` that is over, and
    takes the place of the share of updates done in what follows.

    Linear growth over the warm-up, then by `config.schedule`:

    - ``constant``: the highest rate throughout;
    - ``inverse_sqrt``: falls as 1/sqrt(update) (Vaswani et al. 2017, section 5.3);
    - ``linear``, ``cosine``: the highest rate until a share `config.decay_start` of all
      updates, then down to a hundredth of it at the last;
    """
    peak, warmup = config.learning_rate, config.warmup
    if update <= warmup:
        return peak * update / warmup
    if config.schedule == "constant":
        return peak
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(max(warmup, 1) / update)
    at = update if spent is None else spent * total
    begin = max(warmup, config.decay_start * total)
    done = min(1.0, max(0.0, (at - begin) / max(1.0, total - begin)))
    left = 1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return peak * (_FLOOR + (1 - _FLOOR) * left)


def reason_to_stop(config: TrainConfig, progress: TrainState, seconds: float) -> str | None:
    """Return why training should stop, None to continue.

    Args:
        config: its limits.
        progress: what was done.
        seconds: of training so far. What ends it, validations and saves, must still fit into
            `max_minutes`; before the first one, a tenth of the time is kept for each.
    """
    if progress.epoch >= config.epochs:
        return f"{config.epochs} epochs are done"
    if config.max_updates is not None and progress.update >= config.max_updates:
        return f"{config.max_updates} updates are done"
    if progress.validations_since_best >= config.patience:
        return f"dev BLEU has not risen in {config.patience} validations"
    if config.max_minutes is not None:
        reserve = progress.validation_seconds * 1.2 or config.max_minutes * 6
        if seconds + reserve >= config.max_minutes * 60:
            return f"{config.max_minutes:g} minutes are over"
    return None
