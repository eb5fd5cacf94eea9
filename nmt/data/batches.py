"""From the packed corpus to tensors: the plan of an epoch, and one batch.

The only place where BOS, EOS and PAD are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from nmt.data.packed import PackedSet, Side
from nmt.symbols import BOS, EOS, PAD

Indices = NDArray[np.int64]
Blocks = list[Indices]  # of sentences, each block's side by side
# Source ids, their mask, target ids, their mask; returns `[batch, trg_len, src_len]`.
Align = Callable[..., NDArray[np.float32]]

Lengths = tuple[Indices, Indices]  # of all sentences: source, and target without EOS

# Target tokens computed side by side. Two cores lose nothing by few of them, a GPU is left idle.
_BLOCK_TOKENS = {"cpu": 2048, "cuda": 16384}
_STRIP = 2  # blocks that target lengths are taken together for


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, padded behind.

    Attributes:
        src: `[batch, src_len]`.
        src_mask: True on real tokens, `[batch, src_len]`.
        trg_in: BOS + tokens, `[batch, trg_len]`.
        trg_out: tokens + EOS, `[batch, trg_len]`.
        trg_tokens: real tokens of trg_out, EOS counted.
        alignment: how likely each token of trg_out and each source token translate one another,
            `[batch, trg_len, src_len]`, if there is a teacher to say so.
        trg_places: where trg_out, flattened, has real tokens, `[trg_tokens]`; None if only
            trg_out knows.
    """

    src: Tensor
    src_mask: Tensor
    trg_in: Tensor
    trg_out: Tensor
    trg_tokens: int
    alignment: Tensor | None = None
    trg_places: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device, without waiting for the copy."""
        if device.type == "cpu":
            return self
        return self.pinned()._each(lambda part: part.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same where a GPU reads it by itself, while the program goes on."""
        return self._each(torch.Tensor.pin_memory)

    def copied(self, device: torch.device) -> Batch:
        """A copy on a device, to be written into."""
        return self._each(lambda part: part.to(device, copy=True))

    def fill(self, batch: Batch) -> None:
        """Write a batch of the same size into this one's tensors; without waiting, if pinned."""
        for name, place in self._tensors().items():
            place.copy_(getattr(batch, name), non_blocking=True)

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {name: move(part) for name, part in self._tensors().items()}
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in named.items() if isinstance(part, Tensor)}

    def widened(self, rows: int, src_len: int, trg_len: int) -> Batch:
        """The same with more padding, to be one of few sizes: nothing else is learned from it.

        A row more is a source of one token, which no target asks for.
        """
        more = (0, src_len - self.src.shape[1], 0, rows - len(self.src))
        below = (0, trg_len - self.trg_out.shape[1], 0, rows - len(self.src))
        src_mask = pad(self.src_mask, more)
        src_mask[len(self.src) :, 0] = True
        alignment = self.alignment
        if alignment is not None:
            alignment = pad(alignment, (*more[:2], *below))
        return Batch(
            pad(self.src, more, value=PAD),
            src_mask,
            pad(self.trg_in, below, value=PAD),
            pad(self.trg_out, below, value=PAD),
            self.trg_tokens,
            alignment,
        )


def target_tokens(lengths: Lengths, part: Indices) -> int:
    """Target tokens of some sentences, EOS counted."""
    return int(lengths[1][part].sum()) + len(part)


def cells(lengths: Lengths, part: Indices) -> int:
    """What the memory for a part grows with: every target token looks at the source."""
    return len(part) * int(lengths[0][part].max()) * int(lengths[1][part].max() + 1)


def usual_block_tokens(device: torch.device) -> int:
    """How many target tokens of a batch are computed side by side on a device."""
    return _BLOCK_TOKENS[device.type]


def plan_epoch(
    src_lengths: Indices,
    trg_lengths: Indices,
    batch_tokens: int,
    seed: int,
    epoch: int,
    *,
    block_tokens: int | None = None,
) -> list[Blocks]:
    """Cut the corpus into the batches of an epoch: a pure function of its arguments.

    Sentences are put in order by both lengths, equal ones at random, and cut into blocks of
    about `block_tokens` target tokens, EOS counted; the blocks are shuffled, and a batch is as
    many of them as it takes to have about `batch_tokens`. So a large batch has sentences of
    many lengths, and is padded no more than a small one.

    Args:
        src_lengths: source tokens of each sentence, `[sentences]`.
        trg_lengths: target tokens of each sentence without EOS, `[sentences]`.
        batch_tokens: real target tokens in a batch.
        seed: of the training.
        epoch: from 0.
        block_tokens: real target tokens computed side by side; None: the whole batch.

    Returns:
        Batches of blocks of sentence numbers; every sentence stands in exactly one.
    """
    random = np.random.default_rng([seed, epoch])
    together = max(1, round(batch_tokens / (block_tokens or batch_tokens)))
    size = batch_tokens // together
    mixed = random.permutation(len(trg_lengths))
    keys = _by_both_lengths(src_lengths, trg_lengths, size)
    order = mixed[np.argsort(keys[mixed], kind="stable")]
    # Cutting the running sum at multiples of the budget needs no loop over sentences.
    ends = np.cumsum(trg_lengths[order] + 1)
    number = (ends - 1) // size
    blocks = np.split(order, np.flatnonzero(np.diff(number)) + 1)
    shuffled = [blocks[i] for i in random.permutation(len(blocks))]
    return [shuffled[i : i + together] for i in range(0, len(shuffled), together)]


def _by_both_lengths(src_lengths: Indices, trg_lengths: Indices, block_tokens: int) -> Indices:
    """Keys that put sentences of like lengths side by side.

    Sorted by target length alone, a block holds sources of all lengths; sorted by source
    length within each, the step from one target length to the next does. So target lengths
    are taken together until they fill some blocks, and the sources within run up and down in turn.
    """
    tokens = np.bincount(trg_lengths, weights=trg_lengths + 1)
    before = np.cumsum(tokens) - tokens
    _, strip_of = np.unique(before // (_STRIP * block_tokens), return_inverse=True)
    strip = strip_of[trg_lengths]
    src, trg = src_lengths.max() + 1, trg_lengths.max() + 1
    down = strip % 2 == 1
    key = strip * src + np.where(down, src - 1 - src_lengths, src_lengths)
    keys: Indices = key * trg + np.where(down, trg - 1 - trg_lengths, trg_lengths)
    return keys


def make_batch(corpus: PackedSet, sentences: Indices, align: Align | None = None) -> Batch:
    """Gather sentences of the packed corpus into tensors, aligned if `align` is given."""
    src, src_mask = gather(corpus.src, sentences)
    trg, trg_mask = gather(corpus.trg, sentences)
    rows, longest = trg.shape
    trg_in = np.full((rows, longest + 1), PAD, dtype=np.int64)
    trg_out = trg_in.copy()
    trg_in[:, 0] = BOS
    trg_in[:, 1:] = trg
    trg_out[:, :-1] = trg
    trg_out[np.arange(rows), trg_mask.sum(axis=1)] = EOS
    alignment = None
    if align is not None:
        found = align(src, src_mask, trg, trg_mask)
        alignment = torch.from_numpy(np.pad(found, ((0, 0), (0, 1), (0, 0))))  # EOS: to nothing
    return Batch(
        torch.from_numpy(src),
        torch.from_numpy(src_mask),
        torch.from_numpy(trg_in),
        torch.from_numpy(trg_out),
        int(trg_mask.sum()) + rows,
        alignment,
        trg_places=torch.from_numpy(np.flatnonzero(trg_out != PAD)),
    )


def pad_sources(sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Source ids and their mask, for translation; no sentence may be empty."""
    src = _padded(sources)
    lengths = torch.tensor([len(ids) for ids in sources])
    # By length, not by id: PAD may stand inside, for a token whose vector is left out.
    return src, torch.arange(src.shape[1]) < lengths.unsqueeze(1)


def pad_pairs(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """Pairs of ids as a batch, for forced decoding; no source may be empty, a target may."""
    src, src_mask = pad_sources(sources)
    trg_in = _padded([[BOS, *ids] for ids in targets])
    trg_out = _padded([[*ids, EOS] for ids in targets])
    return Batch(src, src_mask, trg_in, trg_out, sum(map(len, targets)) + len(targets))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """`[rows, longest]`, PAD behind."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=PAD)


def gather(
    side: Side, sentences: Indices, kind: type[Any] = np.int64
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Ids of some sentences side by side, PAD behind each, and the mask of real ones."""
    ends = side.ends[sentences]
    begins = np.where(sentences > 0, side.ends[sentences - 1], 0)
    lengths = ends - begins
    columns = np.arange(lengths.max())
    mask: NDArray[Any] = columns < lengths[:, None]
    padded = np.full(mask.shape, PAD, dtype=kind)
    padded[mask] = side.ids[(begins[:, None] + columns)[mask]]
    return padded, mask
