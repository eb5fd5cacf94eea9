"""64-bit hash keys of sentences and pairs, and vectorised operations on arrays of them.

The probability that any two different sentences among n share a key is about n² / 2^65:
one in a hundred thousand for 18 million sentences.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from nmt.text.normalise import leakage_key

Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]


def text_key(text: str) -> int:
    """Return the 64-bit hash of exactly this text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def sentence_key(text: str) -> int:
    """Return the 64-bit hash of the `leakage_key` of a normalised sentence."""
    return text_key(leakage_key(text))


def is_member(values: Keys, members: Keys) -> Flags:
    """Whether each value occurs in `members`, `[values]`."""
    if not len(members):
        return np.zeros(len(values), dtype=bool)
    members = np.sort(members)
    slots = np.minimum(np.searchsorted(members, values), len(members) - 1)
    flags: Flags = members[slots] == values
    return flags


def uniform_draws(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return a reproducible pseudo-random integer in [0, count) for each position (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = _mix(positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (mixed >> np.uint64(32)).astype(np.int64) % count


def seeded_keys(values: Keys, seed: tuple[int, ...]) -> Keys:
    """Return another hash of each key, depending on the seed, `[positions]`."""
    return _mix(values ^ np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])


def _mix(values: Keys) -> Keys:
    """Apply the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
