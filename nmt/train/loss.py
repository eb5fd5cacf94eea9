"""Cross-entropy loss, in nats per target token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.model.fast.kernels import Kernels
from nmt.model.fast.triton_launch import TritonKernels, triton_available
from nmt.model.fast.weight import Weight, autocast_precision, no_autocast
from nmt.symbols import PAD

# Logits held in memory at a time: enough for efficient matmuls, or to keep a GPU busy.
_LOGITS_PER_CHUNK = {"cpu": 1 << 23, "cuda": 1 << 27}

# Logits turned into gradients at a time: what fits into the caches of two CPU cores.
_LOGITS_IN_CACHE = {"cpu": 1 << 18, "cuda": 1 << 25}

_MIN_ATTENTION = 1e-6  # floor inside the logarithm; keeps the gradient finite


@dataclass(frozen=True)
class Loss:
    """Sums over the target tokens of a batch. EOS counts, padding does not.

    Attributes:
        smoothed: the minimised loss, a scalar with its autograd graph.
        plain: cross-entropy without label smoothing, a detached scalar.
            exp(plain / tokens) is the perplexity.
        tokens: number of target tokens.
    """

    smoothed: Tensor
    plain: Tensor
    tokens: int


def batch_loss(
    model: Seq2Seq,
    batch: Batch,
    label_smoothing: float,
    guided_alignment: float = 0.0,
) -> Loss:
    """Return the loss of a batch, summed over its target tokens.

    With label smoothing e, the target distribution is 1-e on the reference token plus e spread
    evenly over the vocabulary (Szegedy et al. 2016). If the batch has an alignment,
    `guided_alignment` times `alignment_loss` is added to the smoothed loss.
    """
    features, attention = model(batch.src, batch.src_mask, batch.trg_in)
    features, reference = features.flatten(0, 1), batch.trg_out.flatten()
    if batch.target_positions is not None:
        # Skip padding: it would cost a product with the whole output embedding.
        features, reference = features[batch.target_positions], reference[batch.target_positions]
    decoder = model.decoder
    smoothed, plain = output_loss(
        features, decoder.embedding.weight, decoder.output_bias, reference, label_smoothing
    )
    if batch.alignment is not None and guided_alignment:
        smoothed = smoothed + guided_alignment * alignment_loss(attention, batch.alignment)
    return Loss(smoothed, plain, batch.trg_tokens)


def alignment_loss(attention: Tensor, alignment: Tensor) -> Tensor:
    """Return the cross-entropy between a word alignment and the attention.

    -sum_ij A_ij log a_ij (Chen et al. 2016, eq. 5; Mi et al. 2016). Target tokens without
    alignment (rows of zeros) contribute nothing.

    Args:
        attention: a_ij, `[batch, trg_len, src_len]`.
        alignment: A_ij, `[batch, trg_len, src_len]`; rows sum to at most 1.

    Returns:
        The sum over all target tokens, in nats.
    """
    return -(alignment * torch.log(attention + _MIN_ATTENTION)).sum()


def output_loss(
    features: Tensor, weight: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Compute the output layer and its cross-entropy together, in chunks of target tokens.

    The logits of all tokens never exist at the same time: each chunk is overwritten by its own
    gradient. Under ``torch.autocast`` the matmuls run in its precision, the softmax in the
    precision of the weights.

    Args:
        features: `[tokens, embedding]`.
        weight: `[vocab, embedding]`.
        bias: `[vocab]`.
        reference: reference token ids, `[tokens]`; PAD is ignored.
        label_smoothing: share of the target distribution spread over the vocabulary.

    Returns:
        The smoothed loss with its autograd graph, and the detached plain loss, both summed.
    """
    precision = autocast_precision(features.device.type, weight.dtype)
    features = features.to(weight.dtype)
    with no_autocast(features):
        smoothed, plain = _OutputLoss.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, reference, label_smoothing, precision
        )
    return smoothed, plain


def _kernels(features: Tensor) -> Kernels | None:
    """Return the fused cross-entropy kernels if they support the device of `features`."""
    return TritonKernels() if triton_available(features) else None


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
        vocab, output = len(weight), Weight(weight, precision)
        plain, smoothed = bias.new_zeros(()), bias.new_zeros(())
        d_features = torch.empty_like(features)
        d_weight, d_bias, none = torch.zeros_like(weight), torch.zeros_like(bias), bias.new_zeros(1)
        chunk = _rows_of(_LOGITS_PER_CHUNK, features, vocab)
        kernels = _kernels(features)
        for start in range(0, len(reference), chunk):
            rows = slice(start, start + chunk)
            scores = output.scores(features[rows])  # [rows, vocab]
            plain_part, smoothed_part, d_bias_part = (
                _scores_to_gradient(scores, bias, reference[rows], label_smoothing)
                if kernels is None
                else _scores_to_gradient_fused(
                    kernels, scores, bias, reference[rows], label_smoothing
                )
            )
            plain += plain_part
            smoothed += smoothed_part
            d_features[rows] = output.backward(scores, none)
            d_weight += output.gradient(scores, features[rows])
            d_bias += d_bias_part
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _plain: Tensor) -> tuple[Tensor | None, ...]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        return d_features * scale, d_weight * scale, d_bias * scale, None, None, None


def _rows_of(logits: dict[str, int], tensor: Tensor, vocab: int) -> int:
    """Return how many rows of `vocab` logits fit the limit for the tensor's device."""
    return max(1, logits.get(tensor.device.type, logits["cpu"]) // vocab)


def _smooth(plain: Tensor, uniform: Tensor, label_smoothing: float) -> Tensor:
    """Combine the cross-entropies against the reference and against the uniform distribution."""
    return (1 - label_smoothing) * plain + label_smoothing * uniform


def _scores_to_gradient_fused(
    kernels: Kernels, scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the work of `_scores_to_gradient` in one kernel launch."""
    losses, uniform_losses = kernels.cross_entropy(scores, bias, reference, label_smoothing)
    plain = losses.sum()
    smoothed = _smooth(plain, uniform_losses.sum(), label_smoothing)
    return plain, smoothed, scores.sum(dim=0, dtype=bias.dtype)


def _scores_to_gradient(
    scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Overwrite scores with the gradient of the smoothed loss with respect to them.

    Works on a few rows at a time, which stay in the CPU cache.

    Args:
        scores: logits without bias, `[tokens, vocab]`, in any precision.
        bias: `[vocab]`; the computation uses its precision.
        reference: reference token ids, `[tokens]`; PAD is ignored.
        label_smoothing: share of the target distribution spread over the vocabulary.

    Returns:
        The plain loss and the smoothed loss, summed over tokens; the gradient of the bias.
    """
    vocab, d_bias = scores.shape[1], torch.zeros_like(bias)
    chunk = _rows_of(_LOGITS_IN_CACHE, scores, vocab)
    mask = (reference != PAD).to(bias.dtype).unsqueeze(1)
    reference_log_p, mean_log_p = (bias.new_zeros(mask.shape) for _ in range(2))
    buffer = bias.new_empty(chunk, vocab)
    for start in range(0, len(reference), chunk):
        rows = slice(start, start + chunk)
        ids = reference[rows].unsqueeze(1)
        part = buffer[: len(ids)]
        log_p = part.copy_(scores[rows]).add_(bias).log_softmax(dim=1)
        reference_log_p[rows] = log_p.gather(1, ids)
        mean_log_p[rows] = log_p.mean(dim=1, keepdim=True)
        torch.exp(log_p, out=part)
        # d loss / d score = p - target; the target is e / vocab, plus 1 - e on the reference.
        part.sub_(label_smoothing / vocab).mul_(mask[rows])
        part.scatter_add_(1, ids, mask[rows] * (label_smoothing - 1))
        d_bias += part.sum(dim=0)
        scores[rows] = part
    plain, uniform = -(mask * reference_log_p).sum(), -(mask * mean_log_p).sum()
    return plain, _smooth(plain, uniform, label_smoothing), d_bias
