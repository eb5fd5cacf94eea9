"""Plan the batches of an epoch, and gather packed sentences into padded tensors.

BOS, EOS and PAD are added only here.
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
Blocks = list[Indices]  # sentence numbers; each block is one padded tensor
Lengths = tuple[Indices, Indices]  # of all sentences: source, target without EOS

# Target tokens computed in parallel: a GPU needs many to be busy, a CPU does not.
_BLOCK_TOKENS = {"cpu": 2048, "cuda": 16384}
_BLOCKS_PER_STRIP = 2  # adjacent target lengths are merged until they fill so many blocks


@dataclass(frozen=True)
class Batch:
    """Sentence pairs, padded at the end.

    Attributes:
        src: `[batch, src_len]`.
        src_mask: True on real tokens, `[batch, src_len]`.
        trg_in: BOS + tokens, `[batch, trg_len]`.
        trg_out: tokens + EOS, `[batch, trg_len]`.
        trg_tokens: number of real tokens of trg_out, EOS included.
        alignment: A_ij, the probability that token i of trg_out is aligned to source token j,
            `[batch, trg_len, src_len]`; None without guided alignment.
        target_positions: positions of the real tokens in trg_out, flattened, `[trg_tokens]`;
            None if they must be computed from trg_out.
    """

    src: Tensor
    src_mask: Tensor
    trg_in: Tensor
    trg_out: Tensor
    trg_tokens: int
    alignment: Tensor | None = None
    target_positions: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return a copy on another device, made asynchronously."""
        if device.type == "cpu":
            return self
        return self.pinned()._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return a copy in pinned memory, for asynchronous transfer to a GPU."""
        return self._map(torch.Tensor.pin_memory)

    def copied(self, device: torch.device) -> Batch:
        """Return a copy on a device that `fill` may overwrite."""
        return self._map(lambda tensor: tensor.to(device, copy=True))

    def fill(self, batch: Batch) -> None:
        """Copy a batch of the same shape into this one; asynchronously if it is pinned."""
        for name, tensor in self._tensors().items():
            tensor.copy_(getattr(batch, name), non_blocking=True)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        moved: dict[str, Any] = {name: function(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def padded_to(self, rows: int, src_len: int, trg_len: int) -> Batch:
        """Pad to a bucket size. The added positions are masked and give no gradient.

        An added row has one unmasked source token, so that its softmax is finite.
        """
        src_padding = (0, src_len - self.src.shape[1], 0, rows - len(self.src))
        trg_padding = (0, trg_len - self.trg_out.shape[1], 0, rows - len(self.src))
        src_mask = pad(self.src_mask, src_padding)
        src_mask[len(self.src) :, 0] = True
        alignment = self.alignment
        if alignment is not None:
            alignment = pad(alignment, (*src_padding[:2], *trg_padding))
        return Batch(
            pad(self.src, src_padding, value=PAD),
            src_mask,
            pad(self.trg_in, trg_padding, value=PAD),
            pad(self.trg_out, trg_padding, value=PAD),
            self.trg_tokens,
            alignment,
        )


def target_tokens(lengths: Lengths, sentences: Indices) -> int:
    """Return the number of target tokens of some sentences, EOS included."""
    return int(lengths[1][sentences].sum()) + len(sentences)


def attention_cells(lengths: Lengths, sentences: Indices) -> int:
    """Return rows × longest source × longest target: the size of the attention matrices."""
    src_len, trg_len = lengths[0][sentences].max(), lengths[1][sentences].max() + 1
    return len(sentences) * int(src_len) * int(trg_len)


def default_block_tokens(device: torch.device) -> int:
    """Return how many target tokens of a batch are computed in parallel on a device."""
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
    """Divide the corpus into the batches of an epoch; a pure function of its arguments.

    Sentences are sorted by both lengths, ties in random order, and divided into blocks of
    about `block_tokens` target tokens, EOS included. The blocks are shuffled, and consecutive
    blocks form a batch of about `batch_tokens`. A large batch therefore has sentences of many
    lengths but no more padding than a small one.

    Args:
        src_lengths: source tokens of each sentence, `[sentences]`.
        trg_lengths: target tokens of each sentence without EOS, `[sentences]`.
        batch_tokens: real target tokens in a batch.
        seed: of the training.
        epoch: from 0.
        block_tokens: real target tokens in a block; None: the whole batch is one block.

    Returns:
        Batches of blocks of sentence numbers; every sentence is in exactly one block.
    """
    random = np.random.default_rng([seed, epoch])
    blocks_per_batch = max(1, round(batch_tokens / (block_tokens or batch_tokens)))
    block_size = batch_tokens // blocks_per_batch
    permutation = random.permutation(len(trg_lengths))
    keys = _sort_keys(src_lengths, trg_lengths, block_size)
    order = permutation[np.argsort(keys[permutation], kind="stable")]
    # Split the cumulative sum at multiples of the block size: no loop over sentences.
    ends = np.cumsum(trg_lengths[order] + 1)
    block_numbers = (ends - 1) // block_size
    blocks = np.split(order, np.flatnonzero(np.diff(block_numbers)) + 1)
    shuffled = [blocks[i] for i in random.permutation(len(blocks))]
    starts = range(0, len(shuffled), blocks_per_batch)
    return [shuffled[start : start + blocks_per_batch] for start in starts]


def _sort_keys(src_lengths: Indices, trg_lengths: Indices, block_tokens: int) -> Indices:
    """Return sort keys that make both lengths similar within a block.

    Adjacent target lengths are merged into strips of a few blocks. Within a strip sentences
    are sorted by source length, ascending and descending in turn, so that the source length
    does not jump between strips.
    """
    tokens = np.bincount(trg_lengths, weights=trg_lengths + 1)
    preceding = np.cumsum(tokens) - tokens
    _, strip_of = np.unique(preceding // (_BLOCKS_PER_STRIP * block_tokens), return_inverse=True)
    strip = strip_of[trg_lengths]
    src, trg = src_lengths.max() + 1, trg_lengths.max() + 1
    descending = strip % 2 == 1
    key = strip * src + np.where(descending, src - 1 - src_lengths, src_lengths)
    keys: Indices = key * trg + np.where(descending, trg - 1 - trg_lengths, trg_lengths)
    return keys


def make_batch(corpus: PackedSet, sentences: Indices) -> Batch:
    """Gather sentence pairs of the packed corpus into tensors, with their word alignments."""
    src, src_mask, trg, trg_mask, matrices = _gather_pairs(corpus, sentences)
    rows, trg_len = trg.shape
    trg_in = np.full((rows, trg_len + 1), PAD, dtype=np.int64)
    trg_out = trg_in.copy()
    trg_in[:, 0] = BOS
    trg_in[:, 1:] = trg
    trg_out[:, :-1] = trg
    trg_out[np.arange(rows), trg_mask.sum(axis=1)] = EOS
    return Batch(
        torch.from_numpy(src),
        torch.from_numpy(src_mask),
        torch.from_numpy(trg_in),
        torch.from_numpy(trg_out),
        int(trg_mask.sum()) + rows,
        None if matrices is None else torch.from_numpy(matrices),
        target_positions=torch.from_numpy(np.flatnonzero(trg_out != PAD)),
    )


def _gather_pairs(
    corpus: PackedSet, sentences: Indices
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[Any], NDArray[np.bool_], Any]:
    """Return ids and masks of both sides, and alignment matrices with a row of zeros for EOS."""
    is_extra = sentences >= len(corpus)
    if corpus.extra is None or not is_extra.any():
        src, src_mask = gather(corpus.src, sentences)
        trg, trg_mask = gather(corpus.trg, sentences)
        matrices = None
        if corpus.alignment is not None:
            src_lengths, rows = src_mask.sum(axis=1), trg.shape[1] + 1
            matrices = corpus.alignment.matrices(sentences, src_lengths, rows)
        return src, src_mask, trg, trg_mask, matrices
    if is_extra.all():
        return _gather_pairs(corpus.extra, sentences - len(corpus))
    base = _gather_pairs(replace(corpus, extra=None), sentences[~is_extra])
    extra = _gather_pairs(corpus.extra, sentences[is_extra] - len(corpus))
    return tuple(  # type: ignore[return-value]
        None if array is None else _merge(array, extra_array, is_extra)
        for array, extra_array in zip(base, extra, strict=True)
    )


def _merge(base: NDArray[Any], extra: NDArray[Any], is_extra: NDArray[np.bool_]) -> NDArray[Any]:
    """Put the rows of two padded arrays into one, padded with zeros: PAD, False, no link."""
    shape = np.maximum(base.shape[1:], extra.shape[1:])
    merged = np.full((len(is_extra), *shape), PAD, dtype=base.dtype)
    for rows, array in ((~is_extra, base), (is_extra, extra)):
        block = np.zeros((len(array), *shape), dtype=base.dtype)
        block[tuple(slice(size) for size in array.shape)] = array
        merged[rows] = block
    return merged


def pad_sources(sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad source ids for translation; return them and their mask. No source may be empty."""
    src = _padded(sources)
    lengths = torch.tensor([len(ids) for ids in sources])
    # The mask follows the lengths; ids are not compared with PAD.
    return src, torch.arange(src.shape[1]) < lengths.unsqueeze(1)


def pad_pairs(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Batch:
    """Pad pairs of ids for forced decoding. A target may be empty, a source may not."""
    src, src_mask = pad_sources(sources)
    trg_in = _padded([[BOS, *ids] for ids in targets])
    trg_out = _padded([[*ids, EOS] for ids in targets])
    return Batch(src, src_mask, trg_in, trg_out, sum(map(len, targets)) + len(targets))


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Pad at the end, `[rows, max_len]`."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=PAD)


def gather(
    side: Side, sentences: Indices, dtype: type[Any] = np.int64
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the ids of some sentences, padded at the end, and the mask of real ids."""
    ends = side.ends[sentences]
    begins = np.where(sentences > 0, side.ends[sentences - 1], 0)
    lengths = ends - begins
    columns = np.arange(lengths.max())
    mask: NDArray[Any] = columns < lengths[:, None]
    padded = np.full(mask.shape, PAD, dtype=dtype)
    padded[mask] = side.ids[(begins[:, None] + columns)[mask]]
    return padded, mask
