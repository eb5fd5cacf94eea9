"""Results of a translation: the line, its parts, and candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from nmt.data.tokenizer import Piece
from nmt.text.spans import Masked
from nmt.translate.attention_map import AttentionMap, join_links, join_maps
from nmt.translate.search import Hypothesis


@dataclass(frozen=True)
class Flag:
    """A sign that a translation may be wrong.

    Attributes:
        name: ``script``, ``repetition``, ``unattended``, ``numbers``, ``length`` or
            ``vocabulary``.
        detail: the observation, as a phrase.
    """

    name: str
    detail: str


@dataclass(frozen=True)
class Part:
    """A section of the source that was translated in one search.

    Attributes:
        source: text as the user wrote it.
        hypotheses: best score first.
        pieces: tokenised source, with offsets in the normalised text.
        begin: offset in the line, in characters.
        masked: the source with symbols in place of its protected spans.
        literal: the source is a protected span, copied instead of translated.
    """

    source: str
    hypotheses: list[Hypothesis]
    pieces: list[Piece]
    begin: int = 0
    masked: Masked | None = None
    literal: bool = False

    @property
    def model_input(self) -> str:
        """The text that was tokenised."""
        return self.source if self.masked is None else self.masked.text


@dataclass(frozen=True)
class Candidate:
    """One of several translations of a line.

    Attributes:
        text: on one line.
        score: log-probability over length penalty; sum over parts.
        log_prob: natural log of the probability, EOS counted; sum over parts.
    """

    text: str
    score: float
    log_prob: float


def _no_map(_: Part) -> AttentionMap:
    raise ValueError("a Translation made without a Translator has no attention map")


def _no_flags(_: Translation) -> list[Flag]:
    return []


@dataclass(frozen=True)
class Translation:
    """The translation of one line.

    Attributes:
        source: the input line.
        text: its translation; empty for a blank line.
        score: sum over parts of the best hypothesis' score; 0 for a blank line.
        parts: one, or several if the line was too long for one search.
        candidates: the best translations, best first, at most `n_best`; none for a blank
            line.
    """

    source: str
    text: str
    score: float = 0.0
    parts: list[Part] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    map_part: Callable[[Part], AttentionMap] = field(default=_no_map, repr=False, compare=False)
    find_flags: Callable[[Translation], list[Flag]] = field(
        default=_no_flags, repr=False, compare=False
    )

    @property
    def log_prob(self) -> float:
        """Natural log of the translation's probability; 0 for a blank line."""
        return sum(part.hypotheses[0].log_prob for part in self.parts)

    @cached_property
    def part_maps(self) -> list[AttentionMap]:
        """The attention map of each part; the size grows with the length of the line."""
        return [self.map_part(part) for part in self.parts]

    @cached_property
    def attention_map(self) -> AttentionMap:
        """The attention map of the line; the size grows with the square of its length."""
        return join_maps(self.source, self.part_maps, self._begins)

    @cached_property
    def links(self) -> list[tuple[int, int]]:
        """Word alignment as sorted pairs (source character, target word), both from 0."""
        return join_links(self.part_maps, self._begins)

    @cached_property
    def flags(self) -> list[Flag]:
        """Signs that the translation may be wrong; see `nmt.translate.flags`."""
        return self.find_flags(self)

    @property
    def _begins(self) -> list[int]:
        return [part.begin for part in self.parts]
