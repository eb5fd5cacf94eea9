"""Count the operations and bytes of an update."""

from __future__ import annotations

import functools
from dataclasses import astuple, dataclass
from typing import Any

import torch

from gpu.harness import Bench
from nmt.data.batches import Batch, make_batch
from nmt.symbols import PAD


@dataclass(frozen=True)
class Work:
    """Work of an update, by formula.

    Attributes:
        flops: of products with weights and attention sums, forward and backward (three times
            forward), real tokens only; two per multiply-add.
        recurrence_bytes: moved by the recurrence if each operation reads and writes each of its
            tensors once, weights once per step.
        logits_bytes: of scores and their gradients, each written and read once.
        weights_bytes: of gradients, clipping and Adam.
        tanhs: of the attention, in forward, in backward and in `key_grads`.
    """

    flops: float
    recurrence_bytes: float
    logits_bytes: float
    weights_bytes: float
    tanhs: float

    @property
    def bytes(self) -> float:
        """Return all bytes; embeddings, encoder and readout are not counted."""
        return self.recurrence_bytes + self.logits_bytes + self.weights_bytes

    def __add__(self, second: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(second), strict=True)))


def work_of(
    shape: dict[str, int], pieces: int, parameters: int, batch: Batch, itemsize: int = 2
) -> Work:
    """Count the work of an update.

    Args:
        shape: of the network.
        pieces: target vocabulary.
        parameters: number of weights.
        batch: on the CPU.
        itemsize: bytes per element of a product.
    """
    e, h, d, u = (
        shape[k] for k in ("embedding_dim", "encoder_hidden", "decoder_hidden", "attention_hidden")
    )
    states = 2 * h
    src_lengths = batch.src_mask.sum(dim=1).double()
    trg_lengths = (batch.trg_out != PAD).sum(dim=1).double()
    src, trg = float(src_lengths.sum()), float(batch.trg_tokens)
    steps, rows = batch.trg_out.shape[1], float(len(batch.trg_out))
    pairs = float((src_lengths * trg_lengths).sum())  # pairs of source and target tokens
    multiply_adds = (
        src * (2 * 3 * h * (e + h) + states * u)
        + trg * (3 * d * (e + states + d) + d * u)
        + pairs * (u + states)
        + trg * (e * (d + states + e) + pieces * e)
    )
    out, cells = 3 * d + u, rows * steps  # the recurrence computes padding too
    exact = 4
    attention_reads = src * steps * (u + states) * itemsize  # keys and encoder states, per step
    weights = steps * (out * d + 3 * d * states) * itemsize
    forward = cells * itemsize * (
        (d + out) + (u + states) + (states + 3 * d) + (9 * d + 4 * d)
    ) + cells * exact * 2 * d + src * steps * exact + attention_reads + weights  # fmt: skip
    backward = cells * itemsize * (
        (7 * d + 6 * d) + (3 * d + 2 * states) + (states + 2 * u) + (out + d)
    ) + cells * exact * 2 * d + src * steps * exact * 2 + attention_reads + weights  # fmt: skip
    after = (
        cells * itemsize * (out + d + 3 * d + states)  # gradients of weights
        + cells * itemsize * (u + states) + 2 * src * (u + states) * itemsize
    )  # fmt: skip
    return Work(
        flops=3 * 2 * multiply_adds,
        recurrence_bytes=forward + backward + after,
        logits_bytes=trg * pieces * itemsize * 4,
        weights_bytes=parameters * 4.0 * (1 + 3 + 7),  # written; read, scaled; Adam: 4 in, 3 out
        tanhs=3.0 * src * steps * u,
    )


def counted(
    bench: Bench, shape: str, tokens: int, itemsize: int
) -> tuple[Work, int, dict[str, Any]]:
    """Return the work of a pass, its real target tokens, and figures per token for JSON."""
    batches = [make_batch(bench.corpus, part) for part in bench.plan(tokens)]
    sizes, pieces = bench.settings.shape(shape), bench.pieces(shape)[1]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in bench.network(shape, 0.0).parameters())
    work = functools.reduce(
        Work.__add__, (work_of(sizes, pieces, parameters, batch, itemsize) for batch in batches)
    )
    real = sum(batch.trg_tokens for batch in batches)
    return work, real, {
        "parameters": parameters,
        "target_pieces": pieces,
        "sentences_per_update": sum(len(batch.src) for batch in batches) / len(batches),
        "steps_per_update": sum(batch.trg_out.shape[1] for batch in batches) / len(batches),
        "source_tokens_per_target_token": sum(int(b.src_mask.sum()) for b in batches) / real,
        "target_padding": 1 - real / sum(batch.trg_out.numel() for batch in batches),
        "mflop_per_target_token": work.flops / real / 1e6,
        "bytes_per_target_token": {
            "recurrence": work.recurrence_bytes / real,
            "logits": work.logits_bytes / real,
            "weights": work.weights_bytes / real,
        },
        "tanhs_per_target_token": work.tanhs / real,
    }  # fmt: skip
