"""Find repeated pairs and placeholder targets from the keys of all pairs."""

from __future__ import annotations

import numpy as np

from nmt.text.keys import Flags, Keys, is_member


def find_duplicates(keys: Keys, wanted: Flags) -> Flags:
    """Flag every wanted pair whose key occurs at an earlier wanted pair, `[pairs]`."""
    positions = np.flatnonzero(wanted)
    first = np.unique(keys[positions], return_index=True)[1]
    repeated = wanted.copy()
    repeated[positions[first]] = False
    return repeated


def find_placeholder_targets(src: Keys, trg: Keys, max_sources: int) -> Flags:
    """Flag pairs whose target occurs with more than `max_sources` different sources."""
    order = np.lexsort((src, trg))
    targets, sources = trg[order], src[order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (targets[1:] != targets[:-1]) | (sources[1:] != sources[:-1])
    values, counts = np.unique(targets[is_new], return_counts=True)
    return is_member(trg, values[counts > max_sources])
