"""Where a training stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainState:
    """Everything except tensors that is needed to resume a training.

    Attributes:
        update: optimizer updates done.
        epoch: the current epoch, from 0.
        batch: index of the next batch of the epoch.
        tokens: target tokens processed, EOS included.
        seconds: training time so far, validations and saves included.
        validation_seconds: duration of the last validation and its save.
        best_bleu: best dev BLEU so far, 0 to 100; -1 before the first validation.
        validations_since_best: validations since the best one.
        rate_scale: factor on the scheduled learning rate; halved at each rollback.
        skipped: updates skipped because of a non-finite gradient.
        consecutive_skips: of these, those since the last successful update.
        rollbacks: times that training returned to its last checkpoint.
        stopped_by: the limit that ended training; None before.
        block_tokens: target tokens of a block when training started, on any device.
    """

    update: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    best_bleu: float = -1.0
    validations_since_best: int = 0
    rate_scale: float = 1.0
    skipped: int = 0
    consecutive_skips: int = 0
    rollbacks: int = 0
    stopped_by: str | None = None
    block_tokens: int | None = None

    @classmethod
    def from_checkpoint(cls, state: dict[str, Any]) -> TrainState:
        """Return the training state recorded in a checkpoint."""
        return cls(**{key: state[key] for key in cls.__dataclass_fields__ if key in state})

    def note_score(self, bleu: float) -> bool:
        """Record a dev BLEU; return whether it is the best so far."""
        if bleu > self.best_bleu:
            self.best_bleu, self.validations_since_best = bleu, 0
            return True
        self.validations_since_best += 1
        return False
