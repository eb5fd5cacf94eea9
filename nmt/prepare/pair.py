"""A sentence pair."""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """A Chinese sentence and its English translation, as the source spells them."""

    src: str
    trg: str
