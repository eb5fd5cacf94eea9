"""What an update or a kernel must do at the least, counted: operations and bytes."""

from __future__ import annotations

import functools
from dataclasses import astuple, dataclass
from typing import Any

import torch

from gpu.bench import Bench
from gpu.kernel_checks import Sizes
from nmt.data.batches import Batch, make_batch
from nmt.symbols import PAD


@dataclass(frozen=True)
class Work:
    """Of an update, counted by formula.

    Attributes:
        flops: multiply-adds times two of all products with weights and of the attention's
            sums, forward and backward (three times forward), of real tokens.
        recurrence_bytes: that the kernels and products of the time loop move, if every
            tensor is read and written once where it is used, weights once a step.
        logits_bytes: of scores and their gradients, written and read once each.
        weights_bytes: of gradients, clipping and Adam.
        tanhs: of the attention, in forward, in backward and in `look_finish`.
    """

    flops: float
    recurrence_bytes: float
    logits_bytes: float
    weights_bytes: float
    tanhs: float

    @property
    def bytes(self) -> float:
        """All that is counted; embeddings, encoder and readout are not."""
        return self.recurrence_bytes + self.logits_bytes + self.weights_bytes

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def work_of(
    shape: dict[str, int], pieces: int, parameters: int, batch: Batch, kept: int = 2
) -> Work:
    """Count the work of an update.

    Args:
        shape: of the network.
        pieces: target vocabulary.
        parameters: how many weights there are.
        batch: on the CPU.
        kept: bytes of a number in a product.
    """
    e, h, d, u = (
        shape[k] for k in ("embedding_dim", "encoder_hidden", "decoder_hidden", "attention_hidden")
    )
    states = 2 * h
    src_lengths = batch.src_mask.sum(dim=1).double()
    trg_lengths = (batch.trg_out != PAD).sum(dim=1).double()
    src, trg = float(src_lengths.sum()), float(batch.trg_tokens)
    steps, rows = batch.trg_out.shape[1], float(len(batch.trg_out))
    looks = float((src_lengths * trg_lengths).sum())  # pairs of a real source and target token
    multiply_adds = (
        src * (2 * 3 * h * (e + h) + states * u)
        + trg * (3 * d * (e + states + d) + d * u)
        + looks * (u + states)
        + trg * (e * (d + states + e) + pieces * e)
    )
    out, cells = 3 * d + u, rows * steps  # padding is computed in the time loop
    exact = 4
    looked = src * steps * (u + states) * kept  # keys and encoder states, once a step
    weights = steps * (out * d + 3 * d * states) * kept
    forward = cells * kept * (
        (d + out) + (u + states) + (states + 3 * d) + (9 * d + 4 * d)
    ) + cells * exact * 2 * d + src * steps * exact + looked + weights  # fmt: skip
    backward = cells * kept * (
        (7 * d + 6 * d) + (3 * d + 2 * states) + (states + 2 * u) + (out + d)
    ) + cells * exact * 2 * d + src * steps * exact * 2 + looked + weights  # fmt: skip
    after = (
        cells * kept * (out + d + 3 * d + states)  # gradients of weights
        + cells * kept * (u + states) + 2 * src * (u + states) * kept  # look_finish, spread
    )  # fmt: skip
    return Work(
        flops=3 * 2 * multiply_adds,
        recurrence_bytes=forward + backward + after,
        logits_bytes=trg * pieces * kept * 4,
        weights_bytes=parameters * 4.0 * (1 + 3 + 7),  # written; read, scaled; Adam: 4 in, 3 out
        tanhs=3.0 * src * steps * u,
    )


def counted(bench: Bench, shape: str, tokens: int, kept: int) -> tuple[Work, int, dict[str, Any]]:
    """Work of a pass and its real target tokens, and both as shares for JSON; no device needed."""
    batches = [make_batch(bench.corpus, part) for part in bench.plan(tokens)]
    sizes, pieces = bench.settings.shape(shape), bench.pieces(shape)[1]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in bench.network(shape, 0.0).parameters())
    work = functools.reduce(
        Work.__add__, (work_of(sizes, pieces, parameters, batch, kept) for batch in batches)
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


def kernel_bytes(name: str, sizes: Sizes, kept: int = 2) -> int:
    """What a kernel must move at the least; lengths random, half of the longest on average."""
    rows, u, states, h = sizes.batch, sizes.units, sizes.states, sizes.hidden
    source = rows * (sizes.src_len + 1) // 2
    return {
        "attend": source * (u + states) * kept + rows * (u + states) * kept + source * 4,
        "attend_backward": source * (u + states) * kept
        + rows * (2 * u + states) * kept
        + source * 8,
        "key_grads": 2 * source * u * kept + sizes.trg_len * (rows * u * kept + source * 4),
        "encoder_grads": source * states * kept
        + sizes.trg_len * (rows * states * kept + source * 4),
        "cross_entropy": rows * (3 * u + 1) * 3 * kept,
        "gates": rows * h * (13 * kept + 8),
        "gates_backward": rows * h * (13 * kept + 8),
    }[name]
