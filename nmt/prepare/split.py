"""Decisions that need the whole corpus: duplicates, place-holders, and the fence.

Everything here works on 64-bit keys of the sentences, a few arrays whatever the
length of the text. The fence: dev and test are held out in whole *groups*, so that no
sentence, on either side, stands both in train and in what judges it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from nmt.errors import NmtError
from nmt.text import fence_key

Keys = NDArray[np.uint64]
Flags = NDArray[np.bool_]

TRAIN, DEV, TEST, DROPPED = 0, 1, 2, 3


def sentence_key(text: str) -> int:
    """64 bits that stand for a sentence; equal for sentences the fence holds equal."""
    return text_key(fence_key(text))


def text_key(text: str) -> int:
    """64 bits that stand for exactly this text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def find_duplicates(pair_keys: Keys) -> Flags:
    """True for every pair seen before, `[pairs]`."""
    _, first = np.unique(pair_keys, return_index=True)
    repeated = np.ones(len(pair_keys), dtype=bool)
    repeated[first] = False
    return repeated


def find_place_holders(src_keys: Keys, trg_keys: Keys, most: int) -> Flags:
    """True for pairs whose target stands against more than `most` different sources."""
    both = np.unique(np.stack([trg_keys, src_keys], axis=1), axis=0)
    targets, counts = np.unique(both[:, 0], return_counts=True)
    return np.isin(trg_keys, targets[counts > most])


def find_groups(src_keys: Keys, trg_keys: Keys) -> NDArray[np.int64]:
    """Number the groups: pairs linked by a shared source or target, directly or not.

    Label propagation: every pair takes the smallest label among those that share its
    source, then its target, until nothing changes.
    """
    labels = np.arange(len(src_keys))
    sides = [np.unique(keys, return_inverse=True)[1].ravel() for keys in (src_keys, trg_keys)]
    while True:
        before = labels
        for side in sides:
            smallest = np.full(side.max(initial=-1) + 1, len(labels))
            np.minimum.at(smallest, side, labels)
            labels = smallest[side]
        labels = np.minimum(labels, labels[labels])  # jump ahead along chains
        if np.array_equal(labels, before):
            return labels


def hold_out(groups: NDArray[np.int64], wanted: dict[int, int], seed: int) -> NDArray[np.uint8]:
    """Assign each pair to TRAIN, DEV or TEST, whole groups at a time.

    Args:
        groups: group of each pair, `[pairs]`.
        wanted: pairs to hold out for DEV and TEST. Groups are drawn at random and
            taken while they fit, so each set has exactly as many as asked.
        seed: of the draw.

    Raises:
        NmtError: there are too few pairs.
    """
    labels, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(labels))
    place = np.zeros(len(labels), dtype=np.uint8)
    at = 0
    for which, count in wanted.items():
        # A large group would fill a whole set with variants of one sentence.
        largest = max(1, count // 20)
        missing = count
        while missing and at < len(order):
            group = order[at]
            at += 1
            if sizes[group] <= min(missing, largest):
                place[group] = which
                missing -= int(sizes[group])
        if missing:
            raise NmtError(
                f"{len(groups)} pairs after cleaning: too few to hold out {sum(wanted.values())} "
                "in groups that share no sentence with the rest",
                "lower data.dev and data.test, or name files of their own for them",
            )
    return place[np.searchsorted(labels, groups)]
