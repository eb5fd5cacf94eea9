"""Attributes that pages and charts read, so that this package imports none of their classes."""

from __future__ import annotations

from typing import Any, Protocol


class AttentionMap(Protocol):
    """Attention weights of one sentence."""

    @property
    def characters(self) -> list[str]:
        """Source characters, the columns."""

    @property
    def words(self) -> list[str]:
        """Target words, the rows."""

    @property
    def weights(self) -> Any:
        """Array a_ij, `[words, characters]`; rows sum to 1."""


class Flag(Protocol):
    """A quality warning about one translation."""

    @property
    def name(self) -> str:
        """Kind of warning."""

    @property
    def detail(self) -> str:
        """Explanation."""


class Score(Protocol):
    """A corpus score."""

    @property
    def name(self) -> str:
        """Name of the metric."""

    @property
    def value(self) -> float:
        """Value, 0 to 100."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the 95 % interval."""
