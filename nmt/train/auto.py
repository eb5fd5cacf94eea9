"""Resolve settings that are ``auto`` from the corpus size and the processor.

They are resolved before the run directory is created and stored in it. A resumed training
compares its own choice with the stored one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

from nmt.config.schema import Config
from nmt.device import choose_precision
from nmt.distributed import Workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Advice:
    """For corpora of up to `pairs` training pairs. docs/results/recipes.md has the measurements."""

    pairs: float
    batch_tokens: int
    dropout: float
    ema: float = 0.999


# A small corpus lacks updates before it lacks tokens, so its batches are small (Sennrich &
# Zhang 2019); a large one needs less protection from being learned by heart.
_ADVICE = (
    _Advice(15_000, 512, 0.2),
    _Advice(50_000, 1024, 0.25),
    _Advice(200_000, 2048, 0.25),
    _Advice(1_000_000, 4096, 0.2),
    _Advice(float("inf"), 8192, 0.1),
)
# With train.start_from. Only tried on small corpora: docs/how-to/adapt.md.
_FINE_TUNING = (
    _Advice(15_000, 512, 0.2, 0.99),
    _Advice(50_000, 512, 0.2, 0.995),
    *_ADVICE[2:],
)
_KEYS = (("model", "dropout"), ("train", "batch_tokens"), ("train", "ema"))


def resolve_auto(config: Config, pairs: int) -> Config:
    """Replace every ``auto`` that training reads by a number, and say which and why.

    Args:
        config: as the user wrote it.
        pairs: in train.
    """
    table = _ADVICE if config.train.start_from is None else _FINE_TUNING
    advice = next(advice for advice in table if pairs <= advice.pairs)
    chosen: dict[str, dict[str, float]] = {"model": {}, "train": {}}
    for section, key in _KEYS:
        if getattr(getattr(config, section), key) == "auto":
            chosen[section][key] = getattr(advice, key)
    if any(chosen.values()):
        shown = ", ".join(f"{s}.{k} {v:g}" for s, keys in chosen.items() for k, v in keys.items())
        logger.info(f"auto, for {pairs:,} training pairs: {shown}")
    return config.model_copy(
        update={s: getattr(config, s).model_copy(update=keys) for s, keys in chosen.items()}
    )


def resolve_precision(config: Config, device: torch.device, workers: Workers) -> Config:
    """Replace ``train.precision: auto``; all workers take the same."""
    chosen = choose_precision(config.train.precision, device)
    (rounds,) = workers.min([float(chosen == torch.bfloat16)])
    precision = "bfloat16" if rounds else "float32"
    return config.model_copy(
        update={"train": config.train.model_copy(update={"precision": precision})}
    )
