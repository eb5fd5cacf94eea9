"""A random corpus and a small model, for tests of the loss and its gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.config.schema import ModelConfig
from nmt.data.alignment import PackedAlignment
from nmt.data.packed import PackedSet, Side
from nmt.model import Seq2Seq

VOCAB = 50


def random_corpus(sentences: int, seed: int = 1) -> PackedSet:
    """Return sentence pairs of 1 to 8 random ids per side."""
    random = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        ends = np.cumsum(random.integers(1, 9, sentences))
        sides.append(Side(random.integers(4, VOCAB, ends[-1]), ends))
    return PackedSet(sides[0], sides[1])


def align_to_last(corpus: PackedSet) -> PackedSet:
    """Return the corpus with every target token aligned to the last source token."""
    src, trg = corpus.src.lengths, corpus.trg.lengths
    matrices = np.zeros((len(corpus), trg.max(), src.max()), dtype=np.float32)
    for matrix, src_len, trg_len in zip(matrices, src, trg, strict=True):
        matrix[:trg_len, src_len - 1] = 1
    return replace(corpus, alignment=pack_alignment(matrices, src))


def pack_alignment(
    matrices: NDArray[np.float32], src_lengths: NDArray[np.int64]
) -> PackedAlignment:
    """Pack zero-padded alignment matrices `[pairs, trg_len, src_len]`."""
    numbers = np.arange(len(matrices))
    return PackedAlignment.from_batches([(numbers, src_lengths, matrices)], len(matrices))


def small_model(dropout: float = 0.0, size: int = 16) -> Seq2Seq:
    """Return a model with fixed initial weights and `size` units in each layer."""
    torch.manual_seed(1)
    config = ModelConfig(
        embedding_dim=size, encoder_hidden=size, decoder_hidden=size, attention_hidden=size,
        dropout=dropout, word_dropout=0.0, attention_query="state", layer_norm=False,
    )  # fmt: skip
    return Seq2Seq(VOCAB, VOCAB, config)


def gradients(model: Seq2Seq) -> dict[str, Tensor]:
    """Return a copy of the gradient of each parameter that has one."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
