"""Where a piece comes from, given translation probabilities: IBM model 1 and an HMM.

The *made* side is what a direction explains, the *by* side what it explains it with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[Any]
Mask = NDArray[np.bool_]

JUMP_RANGE = 100  # farther jumps count as this far

_NULL = 0.1  # prior probability that a piece is aligned to none
_TINY = np.float32(1e-30)  # keeps a division by zero at zero


@dataclass(frozen=True)
class Expected:
    """What one direction believes about a batch.

    Attributes:
        posteriors: p(the piece was made by this one), `[made, batch, by]`.
        jumps: expected number of jumps of each distance, `[2*range + 1]`, or None.
    """

    posteriors: Floats
    jumps: NDArray[np.float64] | None


def model1(emission: Floats, null: Floats, mask: Mask) -> Floats:
    """p(made by) where every position is as likely as another; arguments as in `hmm`."""
    prior = (1 - _NULL) / np.maximum(mask.sum(axis=1, dtype=np.float32), 1)  # [batch]
    scored = emission * prior[:, None]
    total = scored.sum(axis=2) + _NULL * null
    found: Floats = scored / np.maximum(total, _TINY)[:, :, None]
    return found


def hmm(emission: Floats, null: Floats, mask: Mask, jumps: Floats) -> Expected:
    """Forward-backward, time along the made side, states along the other.

    Each state has a twin that makes a piece out of nothing and remembers the position
    (Och & Ney 2003, section 2.2). Both leave for the same places, so one beta serves both.

    Args:
        emission: p(piece | by), 0 on padding, `[made, batch, by]`.
        null: p(piece | none), 1 on padding, `[made, batch]`.
        mask: real states, `[batch, by]`.
        jumps: weight of each distance, `[2*range + 1]`.
    """
    steps, _, states = emission.shape
    offsets = _offsets(states)
    move = jumps[offsets]  # [from, to]
    real = mask.astype(np.float32)
    leave = (1 - np.float32(_NULL)) * real / np.maximum(real @ move.T, _TINY)
    start = real / np.maximum(real.sum(axis=1, keepdims=True), 1)

    alpha = np.empty_like(emission)  # made by this state
    left = np.empty_like(emission)  # in this state or its twin, times what `leave` makes of it
    scale = np.empty_like(null)
    moved, stayed = start * np.float32(1 - _NULL), start * np.float32(_NULL)
    for step in range(steps):
        made = moved * emission[step]
        none = stayed * null[step][:, None]
        here = made + none
        scale[step] = 1 / np.maximum(here.sum(axis=1), _TINY)
        alpha[step] = made * scale[step][:, None]
        here *= scale[step][:, None]
        left[step] = here * leave
        moved, stayed = left[step] @ move, here * np.float32(_NULL)

    arrived = emission * scale[:, :, None]  # becomes emission * beta / scale
    beta = real
    for step in range(steps - 1, -1, -1):
        alpha[step] *= beta
        arrived[step] *= beta
        stay = np.float32(_NULL) * (null[step] * scale[step])[:, None] * beta
        beta = leave * (arrived[step] @ move.T) + stay
    pairs = left[:-1].reshape(-1, states).T @ arrived[1:].reshape(-1, states)
    counted = np.bincount(offsets.ravel(), (pairs * move).ravel(), minlength=2 * JUMP_RANGE + 1)
    return Expected(alpha, counted.astype(np.float64))


def _offsets(states: int) -> NDArray[np.int64]:
    """The place of each jump in a table of jumps, `[from, to]`."""
    places = np.arange(states)
    far = np.clip(places[None, :] - places[:, None], -JUMP_RANGE, JUMP_RANGE)
    found: NDArray[np.int64] = far + JUMP_RANGE
    return found
