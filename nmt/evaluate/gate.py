"""The quality gate: floors that a score must reach, for CI."""

from __future__ import annotations

from collections.abc import Sequence

from nmt.evaluate.metrics import Score


def failures(scores: Sequence[Score], floors: dict[str, float | None]) -> list[str]:
    """One message for each score below its floor; none means the gate is open.

    Args:
        scores: as measured.
        floors: lowest value allowed by the name of the score; None for no floor. A
            score equal to its floor passes.
    """
    return [
        f"{score.name} {score.value:.2f} is below the floor of {floor:g}"
        for score in scores
        if (floor := floors.get(score.name)) is not None and score.value < floor
    ]
