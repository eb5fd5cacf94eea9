"""Decisions that need the whole corpus: duplicates, place-holders, and the fence.

Everything here works on keys on disk and a few bytes a pair in memory (ten, as
`tests/unit/test_decide.py` checks), whatever the length of the text. The fence: dev and
test are held out in whole *groups*, so that no sentence, on either side, stands both in
train and in what judges it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt.errors import NmtError
from nmt.prepare.keys import BLOCK, Flags, Indices, JoinedKeys, KeyFile, Keys, scatter

TRAIN, DEV, TEST, DROPPED = 0, 1, 2, 3

Places = NDArray[np.uint8]
Labels = NDArray[Any]  # int32 while that is enough, so that a pair costs four bytes


def find_duplicates(keys: KeyFile | JoinedKeys, wanted: Flags) -> Flags:
    """True for every wanted pair whose key an earlier wanted one has, `[pairs]`."""
    repeated = np.zeros(len(keys), dtype=bool)

    def mark(positions: Indices, part: Keys) -> Flags:
        first = np.zeros(len(part), dtype=bool)
        first[np.unique(part, return_index=True)[1]] = True
        repeated[positions[~first]] = True
        return first

    for positions, part in keys.parts(wanted, shrink=mark):
        mark(positions, part)
    return repeated


def find_near_duplicates(src: KeyFile, trg: KeyFile, wanted: Flags) -> Flags:
    """As `find_duplicates`, for pairs whose *sentences* the fence holds equal."""
    return find_duplicates(JoinedKeys(src, trg), wanted)


def find_place_holders(src: KeyFile, trg: KeyFile, most: int) -> Flags:
    """True for pairs whose target stands against more than `most` different sources."""
    found = [np.zeros(0, np.uint64)]

    def ranked(positions: Indices, targets: Keys) -> tuple[Indices, NDArray[np.int64]]:
        """An order by target, and there the number of each new source of a target, else 0."""
        sources = src.at(positions)
        order = np.lexsort((sources, targets))
        targets, sources = targets[order], sources[order]
        new = np.r_[True, targets[1:] != targets[:-1]][: len(targets)]
        other = new | np.r_[True, sources[1:] != sources[:-1]][: len(targets)]
        count = np.cumsum(other)
        starts = np.flatnonzero(new)
        before = np.repeat(count[starts] - 1, np.diff(starts, append=len(targets)))
        return order, np.where(other, count - before, 0)

    def needed(positions: Indices, targets: Keys) -> Flags:
        order, number = ranked(positions, targets)
        flags = np.zeros(len(order), dtype=bool)
        flags[order[(number > 0) & (number <= most + 1)]] = True
        return flags

    for positions, targets in trg.parts(shrink=needed):
        order, number = ranked(positions, targets)
        found.append(targets[order[number == most + 1]])
    return trg.among(np.concatenate(found))


def find_groups(src: KeyFile, trg: KeyFile, wanted: Flags, scratch: Path) -> Labels:
    """Number the groups: pairs linked by a shared source or target, directly or not.

    Label propagation: every pair takes the smallest label among those that share its
    source, then its target, until nothing changes. Who shares with whom is found once
    and kept on disk.

    Returns:
        For each wanted pair the position of the first pair of its group, -1 for the
        others, `[pairs]`.
    """
    kind = np.int32 if len(src) < 2**31 else np.int64
    labels = np.arange(len(src), dtype=kind)
    sides = [
        _Sharers(keys, wanted, scratch / f"{name}.sharers.tmp", kind)
        for name, keys in (("src", src), ("trg", trg))
    ]
    changed = True
    while changed:
        changed = False
        for side in sides:
            for members, starts, sizes in side.blocks():
                smallest = np.minimum.reduceat(labels[members], starts)
                spread = np.repeat(smallest, sizes)
                changed = changed or bool((labels[members] != spread).any())
                labels[members] = spread
        for start in range(0, len(labels), BLOCK):  # jump ahead along chains
            block = labels[start : start + BLOCK]
            block[:] = labels[block]
    for side in sides:
        side.remove()
    labels[~wanted] = -1
    return labels


class _Sharers:
    """Runs of positions with the same key, on disk: every run of two and more.

    A very long run is written as several that share their first position.
    """

    def __init__(self, keys: KeyFile, wanted: Flags, path: Path, kind: type[Any]) -> None:
        self._paths = path, path.with_suffix(".sizes")
        self._kind = np.dtype(kind)
        with self._paths[0].open("wb") as members, self._paths[1].open("wb") as sizes:

            def write(positions: Indices, part: Keys) -> Flags:
                order = np.argsort(part, kind="stable")
                ordered = part[order]
                first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
                counts = np.diff(first, append=len(ordered))
                shared = np.repeat(counts > 1, counts)
                members.write(positions[order[shared]].astype(self._kind).tobytes())
                sizes.write(counts[counts > 1].astype(np.int64).tobytes())
                linked = np.zeros(len(part), dtype=bool)
                linked[order[first]] = True  # what comes later is linked through it
                return linked

            for positions, part in keys.parts(wanted, shrink=write):
                write(positions, part)

    def blocks(self) -> Iterator[tuple[Labels, Indices, Indices]]:
        """Members of some runs end to end, where each run starts, how long it is."""
        with self._paths[0].open("rb") as members, self._paths[1].open("rb") as sizes:
            while raw := sizes.read(8 * (BLOCK // 8)):
                counts = np.frombuffer(raw, np.int64)
                many = int(counts.sum()) * self._kind.itemsize
                starts = np.cumsum(counts) - counts
                yield np.frombuffer(members.read(many), self._kind), starts, counts

    def remove(self) -> None:
        for path in self._paths:
            path.unlink()


def hold_out(labels: Labels, wanted: dict[int, int], seed: int) -> Places:
    """Assign each pair to TRAIN, DEV or TEST, whole groups at a time.

    Args:
        labels: group of each pair by the position of its first, -1 for pairs that take
            no part, `[pairs]`.
        wanted: pairs to hold out for DEV and TEST. Groups are drawn at random and
            taken while they fit, so each set has exactly as many as asked.
        seed: of the draw.

    Returns:
        A place for each pair; DROPPED for those that take no part.

    Raises:
        NmtError: there are too few pairs.
    """
    chosen = _choose_groups(labels, wanted, seed)
    places = np.full(len(labels), DROPPED, dtype=np.uint8)
    for start in range(0, len(labels), BLOCK):
        block, out = labels[start : start + BLOCK], places[start : start + BLOCK]
        out[block >= 0] = TRAIN
        for which, groups in chosen.items():
            out[np.isin(block, np.array(groups, dtype=labels.dtype))] = which
    return places


def _choose_groups(labels: Labels, wanted: dict[int, int], seed: int) -> dict[int, list[int]]:
    """The groups of each set. What the draw needs is given back on return."""
    chosen: dict[int, list[int]] = {which: [] for which in wanted}
    drawn = _drawn_groups(labels, seed)
    for which, count in wanted.items():
        # A large group would fill a whole set with variants of one sentence.
        largest = max(1, count // 20)
        missing = count
        for group, size in drawn:
            if size <= min(missing, largest):
                chosen[which].append(group)
                missing -= size
            if not missing:
                break
        if missing:
            raise NmtError(
                f"{int((labels >= 0).sum())} pairs after cleaning: too few to hold out "
                f"{sum(wanted.values())} in groups that share no sentence with the rest",
                "lower data.dev and data.test, or name files of their own for them",
            )
    return chosen


def _drawn_groups(labels: Labels, seed: int) -> Iterator[tuple[int, int]]:
    """Every group in random order, with its size. Sizes are counted as they are needed."""
    firsts = _firsts(labels)
    np.random.default_rng(seed).shuffle(firsts)  # in place: an order beside it costs as much again
    for start in range(0, len(firsts), BLOCK // 4):
        some = firsts[start : start + BLOCK // 4]
        ranked = np.sort(some)
        sizes = np.zeros(len(ranked), dtype=np.int64)
        for begin in range(0, len(labels), BLOCK):
            block = labels[begin : begin + BLOCK]
            at = np.minimum(np.searchsorted(ranked, block), len(ranked) - 1)
            sizes += np.bincount(at[ranked[at] == block], minlength=len(ranked))
        for group in some.tolist():
            yield group, int(sizes[np.searchsorted(ranked, group)])


def _firsts(labels: Labels) -> Labels:
    """The first pair of every group, ascending."""
    firsts = np.empty(sum(len(own) for own in _own_labels(labels)), dtype=labels.dtype)
    filled = 0
    for own in _own_labels(labels):
        firsts[filled : filled + len(own)] = own
        filled += len(own)
    return firsts


def _own_labels(labels: Labels) -> Iterator[Labels]:
    """Block by block, the positions that are their own label."""
    for start in range(0, len(labels), BLOCK):
        block = labels[start : start + BLOCK]
        yield block[block == np.arange(start, start + len(block), dtype=labels.dtype)]


def over_cap(wanted: Flags, begin: int, end: int, cap: int) -> Flags:
    """True for the wanted pairs of a source, `begin` to `end`, that a cap leaves out.

    The pairs that stay are a random sample; the same one every time.
    """
    out = np.zeros(len(wanted), dtype=bool)
    count = int(np.count_nonzero(wanted[begin:end]))
    if count <= cap:
        return out
    draws = np.empty(count, dtype=np.int32)
    filled = 0
    for _, some in _draws(wanted[begin:end]):
        draws[filled : filled + len(some)] = some
        filled += len(some)
    draws.partition(cap)
    limit = draws[cap]
    ties = cap - int(np.count_nonzero(draws < limit))  # of the draws equal to it, the first stay
    for positions, some in _draws(wanted[begin:end]):
        equal = some == limit
        out[begin + positions[(some > limit) | (equal & (np.cumsum(equal) > ties))]] = True
        ties -= min(ties, int(np.count_nonzero(equal)))
    return out


def _draws(wanted: Flags) -> Iterator[tuple[Indices, NDArray[np.int32]]]:
    """Positions of the wanted pairs and a random number for each, block by block."""
    for start in range(0, len(wanted), BLOCK):
        positions = np.flatnonzero(wanted[start : start + BLOCK]) + start
        yield positions, scatter(positions, 1 << 31).astype(np.int32)
