"""Where a training stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Progress:
    """Where training stands: all that is not a tensor and is needed to go on.

    Attributes:
        update: optimizer steps done.
        epoch: the one being run, from 0.
        batch: next batch of its plan.
        tokens: target tokens seen, EOS counted.
        seconds: of training so far, validations and saves included.
        validation_seconds: of the last validation and its save.
        best_bleu: best dev BLEU so far, 0 to 100.
        stale: validations since.
        rate_scale: factor on the scheduled learning rate; falls at each rollback.
        skipped: updates left out because their gradient was not finite.
        bad_in_a_row: of those, the ones since the last good update.
        went_back: times that too many of them made training go back to a checkpoint.
        stopped_by: why training ended, None while it has not.
        block_tokens: of the plan, whatever device it goes on with; None in runs from before
            batches had blocks.
    """

    update: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    best_bleu: float = -1.0
    stale: int = 0
    rate_scale: float = 1.0
    skipped: int = 0
    bad_in_a_row: int = 0
    went_back: int = 0
    stopped_by: str | None = None
    block_tokens: int | None = None

    @classmethod
    def of(cls, state: dict[str, Any]) -> Progress:
        """The progress recorded in a checkpoint's state, which holds other things too."""
        return cls(**{key: state[key] for key in cls.__dataclass_fields__ if key in state})

    def note_score(self, bleu: float) -> bool:
        """Record a dev BLEU; return whether it is the best so far."""
        if bleu > self.best_bleu:
            self.best_bleu, self.stale = bleu, 0
            return True
        self.stale += 1
        return False
