"""Hold out dev and test in whole groups of pairs that share a sentence, and apply caps.

Two pairs belong to the same group if they share a source or a target sentence, directly or
through other pairs. A group is held out as a whole, so no sentence occurs in both training
and held-out data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.errors import NmtError
from nmt.text.keys import Flags, Keys, seeded_keys, uniform_draws

TRAIN, DEV, TEST, DROPPED = 0, 1, 2, 3

SplitIds = NDArray[np.uint8]  # TRAIN, DEV, TEST or DROPPED of each pair
Labels = NDArray[Any]  # int32 while that is enough


def find_groups(src: Keys, trg: Keys, wanted: Flags) -> Labels:
    """Label the connected components of pairs linked by a shared source or target.

    Label propagation: every pair is assigned the smallest label of the pairs with its source,
    then of those with its target, until no label changes.

    Returns:
        For each wanted pair the position of the first pair of its group, -1 for the
        others, `[pairs]`.
    """
    labels = np.arange(len(src), dtype=np.int32 if len(src) < 2**31 else np.int64)
    sides = [_runs_of_equal_keys(keys, wanted) for keys in (src, trg)]
    changed = True
    while changed:
        changed = False
        for members, starts, sizes in sides:
            if not len(members):
                continue
            smallest = np.repeat(np.minimum.reduceat(labels[members], starts), sizes)
            changed = changed or bool((labels[members] != smallest).any())
            labels[members] = smallest
        labels = labels[labels]  # shortcut along chains
    labels[~wanted] = -1
    return labels


def _runs_of_equal_keys(
    keys: Keys, wanted: Flags
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the members of all runs of two or more equal keys, where each starts, its size."""
    positions = np.flatnonzero(wanted)
    positions = positions[np.argsort(keys[positions], kind="stable")]
    ordered = keys[positions]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    sizes = np.diff(first, append=len(ordered))
    members = positions[np.repeat(sizes > 1, sizes)]
    sizes = sizes[sizes > 1]
    return members, np.cumsum(sizes) - sizes, sizes


def hold_out(
    labels: Labels,
    keys: Keys,
    wanted: dict[int, int],
    seed: int,
    previous: dict[int, Flags] | None = None,
) -> SplitIds:
    """Assign each pair to TRAIN, DEV or TEST, whole groups at a time.

    Groups are assigned to each set in the order of their hashes until the set is full.
    The hash depends on the text of the group and the seed only. Adding text to the corpus
    therefore removes a group from a set only if a new group with a smaller hash replaces it.

    Args:
        labels: group of each pair, as `find_groups` returns them.
        keys: source key of each pair, `[pairs]`. The smallest of a group identifies it.
        wanted: number of pairs to hold out, by DEV and TEST; each set has exactly this size.
        seed: of the hash.
        previous: pairs that an earlier corpus held out, by DEV and TEST, `[pairs]`. They stay
            held out, and no other pair of their groups is.

    Returns:
        The set of each pair, DROPPED where the label is -1.

    Raises:
        NmtError: there are too few pairs.
    """
    groups, group_of, sizes = np.unique(
        labels[labels >= 0], return_inverse=True, return_counts=True
    )
    smallest = np.full(len(groups), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(smallest, group_of, keys[labels >= 0])
    split_of_group = np.full(len(groups), TRAIN, dtype=np.uint8)
    kept = {
        split_id: np.flatnonzero(flags & (labels >= 0))[: wanted[split_id]]
        for split_id, flags in (previous or {}).items()
    }
    is_open = np.ones(len(groups), dtype=bool)  # has no pair that an earlier corpus held out
    for positions in kept.values():
        is_open[np.searchsorted(groups, labels[positions])] = False
    for split_id, count in sorted(wanted.items(), reverse=True):
        # A large group would fill a whole set with variants of one sentence.
        max_size = max(1, count // 20)
        missing = count - len(kept.get(split_id, ()))
        for group in np.argsort(seeded_keys(smallest, (seed, split_id)), kind="stable").tolist():
            if not missing:
                break
            is_free = is_open[group] and split_of_group[group] == TRAIN
            if is_free and sizes[group] <= min(missing, max_size):
                split_of_group[group] = split_id
                missing -= int(sizes[group])
        if missing:
            raise NmtError(
                f"{int((labels >= 0).sum())} pairs after cleaning: too few to hold out "
                f"{sum(wanted.values())} in groups that share no sentence with the rest",
                "lower data.dev and data.test, or set them to separate files",
            )
    split_ids = np.full(len(labels), DROPPED, dtype=np.uint8)
    split_ids[labels >= 0] = split_of_group[group_of]
    for split_id, positions in kept.items():
        split_ids[positions] = split_id
    return split_ids


def over_cap(wanted: Flags, begin: int, end: int, cap: int) -> Flags:
    """Flag the wanted pairs in `begin:end` that exceed a cap.

    The pairs that stay are a random sample, the same on every call.
    """
    flags = np.zeros(len(wanted), dtype=bool)
    positions = np.flatnonzero(wanted[begin:end])
    order = np.argsort(uniform_draws(positions, 1 << 31), kind="stable")
    flags[begin + positions[order[cap:]]] = True
    return flags
