"""The loss: cross-entropy in nats per target token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.batches import Batch
from nmt.model import Seq2Seq
from nmt.model.kernels import Kernels, OnTriton, available
from nmt.model.recurrence_cuda import as_given
from nmt.model.weight import Weight, autocast_precision
from nmt.symbols import PAD

# Numbers of the logits that exist at a time: enough for fast products, or to keep a GPU busy.
_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 27}

# Of them, turned into gradients at a time: what fits into the caches of two cores.
_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 25}

_LEAST_ATTENTION = 1e-6  # no token is so far off that its gradient is infinite


@dataclass(frozen=True)
class Loss:
    """Sums over the real target tokens of a batch, EOS counted.

    Attributes:
        smoothed: what is minimised, a scalar with its graph.
        plain: cross-entropy without smoothing, a scalar without one; exp of it per
            token is the perplexity.
        tokens: how many tokens were summed.
    """

    smoothed: Tensor
    plain: Tensor
    tokens: int


def batch_loss(
    model: Seq2Seq, batch: Batch, label_smoothing: float, guided_alignment: float = 0.0
) -> Loss:
    """Loss of a batch, summed; the caller divides by all tokens of its update.

    With smoothing e the target is 1-e on the reference token and e spread evenly over
    the vocabulary (Szegedy et al. 2016). Where the batch is aligned, `guided_alignment` is
    the weight of `alignment_loss` in what is minimised.
    """
    features, attention = model(batch.src, batch.src_mask, batch.trg_in)
    features, reference = features.flatten(0, 1), batch.trg_out.flatten()
    if batch.trg_places is not None:
        # The output layer sees real tokens only: padding would cost a product with the
        # whole vocabulary.
        features, reference = features[batch.trg_places], reference[batch.trg_places]
    decoder = model.decoder
    smoothed, plain = output_loss(
        features, decoder.embedding.weight, decoder.output_bias, reference, label_smoothing
    )
    if batch.alignment is not None and guided_alignment:
        smoothed = smoothed + guided_alignment * alignment_loss(attention, batch.alignment)
    return Loss(smoothed, plain, batch.trg_tokens)


def alignment_loss(attention: Tensor, alignment: Tensor) -> Tensor:
    """Cross-entropy between where a teacher sees the source of each token and the attention.

    -sum_ij A_ij log a_ij (Chen et al. 2016, eq. 5; Mi et al. 2016). A token that the teacher
    aligns to nothing asks for nothing.

    Args:
        attention: a_ij, `[batch, trg_len, src_len]`.
        alignment: A_ij, rows sum to 1 at most, the same shape.

    Returns:
        The sum over all tokens, in nats.
    """
    return -(alignment * torch.log(attention + _LEAST_ATTENTION)).sum()


def output_loss(
    features: Tensor, weight: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The output layer and its cross-entropy in one, a few tokens at a time.

    The logits of all tokens never exist together, and each chunk of them is turned into its
    own gradient in place. Under ``torch.autocast`` the products are made in its precision,
    the softmax in that of the weights.

    Args:
        features: `[tokens, embedding]`.
        weight: `[vocab, embedding]`.
        bias: `[vocab]`.
        reference: ids of what is to be predicted, `[tokens]`; PAD counts for nothing.
        label_smoothing: share of the target spread over the vocabulary.

    Returns:
        the smoothed loss, with its graph, and the plain one without; summed over tokens.
    """
    device = features.device.type
    precision = autocast_precision(device, weight.dtype)
    features = features.to(weight.dtype)
    with as_given(features):
        smoothed, plain = _OutputLoss.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, reference, label_smoothing, precision
        )
    return smoothed, plain


def _kernels(features: Tensor) -> Kernels | None:
    """What turns scores into their gradient in place, where that is one launch."""
    return OnTriton() if available(features) else None


class _OutputLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        reference: Tensor,
        label_smoothing: float,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        vocab, output = len(bias), Weight(weight, precision)
        plain, smoothed = bias.new_zeros(()), bias.new_zeros(())
        d_features = torch.empty_like(features)
        d_weight, d_bias, none = torch.zeros_like(weight), torch.zeros_like(bias), bias.new_zeros(1)
        rows = max(1, _CHUNK.get(features.device.type, _CHUNK["cpu"]) // vocab)
        kernels = _kernels(features)
        for start in range(0, len(reference), rows):
            part = slice(start, start + rows)
            scores = output.scores(features[part])  # [rows, vocab]
            plain_part, even_part, d_bias_part = (
                _into_gradient(scores, bias, reference[part], label_smoothing)
                if kernels is None
                else _by_kernel(kernels, scores, bias, reference[part], label_smoothing)
            )
            plain += plain_part
            smoothed += (1 - label_smoothing) * plain_part + label_smoothing * even_part
            d_features[part] = output.backward(scores, none)
            d_weight += output.gradient(scores, features[part])
            d_bias += d_bias_part
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _plain: Tensor) -> tuple[Tensor | None, ...]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        return d_features * scale, d_weight * scale, d_bias * scale, None, None, None


def _by_kernel(
    kernels: Kernels, scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_into_gradient`, all rows in one launch."""
    losses, evens = kernels.cross_entropy(scores, bias, reference, label_smoothing)
    return losses.sum(), evens.sum(), scores.sum(dim=0, dtype=bias.dtype)


def _into_gradient(
    scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn scores into the gradient of the smoothed loss with respect to them, in place.

    A few rows at a time, which on a CPU stay in the cache for all that is done to them.

    Args:
        scores: without bias, `[tokens, vocab]`, in any precision.
        bias: `[vocab]`; its precision is computed in.
        reference: ids, `[tokens]`; PAD counts for nothing.
        label_smoothing: share of the target spread over the vocabulary.

    Returns:
        cross-entropy with the reference, and with an even target, summed over tokens; the
        gradient of the bias.
    """
    vocab, d_bias = len(bias), torch.zeros_like(bias)
    size = max(1, _AT_ONCE.get(scores.device.type, _AT_ONCE["cpu"]) // vocab)
    counts = (reference != PAD).to(bias.dtype).unsqueeze(1)
    of_reference, mean = torch.empty_like(counts), torch.empty_like(counts)
    room = bias.new_empty(size, vocab)
    for start in range(0, len(reference), size):
        rows = slice(start, start + size)
        ids = reference[rows].unsqueeze(1)
        part = room[: len(ids)]
        log_p = part.copy_(scores[rows]).add_(bias).log_softmax(dim=1)
        of_reference[rows], mean[rows] = log_p.gather(1, ids), log_p.mean(dim=1, keepdim=True)
        # d loss / d score = p - target, where the target has 1 - e more on the reference.
        torch.exp(log_p, out=part).sub_(label_smoothing / vocab).mul_(counts[rows])
        part.scatter_add_(1, ids, counts[rows] * (label_smoothing - 1))
        d_bias += part.sum(dim=0)
        scores[rows] = part
    return -(counts * of_reference).sum(), -(counts * mean).sum(), d_bias
