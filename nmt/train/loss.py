"""The loss: cross-entropy in nats per target token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.model.fast.kernels import Kernels, OnTriton, available
from nmt.model.fast.weight import Weight, as_given, autocast_precision
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
    model: Seq2Seq,
    batch: Batch,
    label_smoothing: float,
    guided_alignment: float = 0.0,
    agreement: float = 0.0,
) -> Loss:
    """Loss of a batch, summed; the caller divides by all tokens of its update.

    With smoothing e the target is 1-e on the reference token and e spread evenly over
    the vocabulary (Szegedy et al. 2016). Where the batch is aligned, `guided_alignment` is
    the weight of `alignment_loss` in what is minimised. With `agreement` each sentence is
    computed in two passes, each with its own dropout: the loss is the mean of both and, with
    that weight, how far apart they predict (R-Drop, Liang et al. 2021; their alpha is twice
    this weight).
    """
    passes = 2 if agreement else 1
    given = [batch.src, batch.src_mask, batch.trg_in]
    if passes > 1:
        given = [part.repeat(passes, 1) for part in given]
    features, attention = model(*given)
    reference = batch.trg_out.flatten()
    features = features.view(passes, len(reference), -1)
    if batch.trg_places is not None:
        # The output layer sees real tokens only: padding would cost a product with the
        # whole vocabulary.
        features, reference = features[:, batch.trg_places], reference[batch.trg_places]
    decoder = model.decoder
    smoothed, plain = output_loss(
        features, decoder.embedding.weight, decoder.output_bias, reference, label_smoothing,
        agreement,
    )  # fmt: skip
    if batch.alignment is not None and guided_alignment:
        looked = attention.view(passes, *batch.alignment.shape)
        smoothed = smoothed + guided_alignment * alignment_loss(looked, batch.alignment)
    return Loss(smoothed / passes, plain / passes, batch.trg_tokens)


def alignment_loss(attention: Tensor, alignment: Tensor) -> Tensor:
    """Cross-entropy between where a teacher sees the source of each token and the attention.

    -sum_ij A_ij log a_ij (Chen et al. 2016, eq. 5; Mi et al. 2016). A token that the teacher
    aligns to nothing asks for nothing.

    Args:
        attention: a_ij, `[passes, batch, trg_len, src_len]`.
        alignment: A_ij, rows sum to 1 at most, `[batch, trg_len, src_len]`.

    Returns:
        The sum over all tokens of all passes, in nats.
    """
    return -(alignment * torch.log(attention + _LEAST_ATTENTION)).sum()


def output_loss(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    reference: Tensor,
    label_smoothing: float,
    agreement: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """The output layer and its cross-entropy in one, a few tokens at a time.

    The logits of all tokens never exist together, and each chunk of them is turned into its
    own gradient in place. Under ``torch.autocast`` the products are made in its precision,
    the softmax in that of the weights.

    Args:
        features: `[passes, tokens, embedding]`.
        weight: `[vocab, embedding]`.
        bias: `[vocab]`.
        reference: ids of what is to be predicted, `[tokens]`; PAD counts for nothing.
        label_smoothing: share of the target spread over the vocabulary.
        agreement: of two passes, the weight of how far apart they predict; of one it must be 0.

    Returns:
        the smoothed loss, with its graph, and the plain one without; summed over the tokens of
        all passes.
    """
    device = features.device.type
    precision = autocast_precision(device, weight.dtype)
    features = features.to(weight.dtype)
    with as_given(features):
        smoothed, plain = _OutputLoss.apply(  # type: ignore[no-untyped-call]
            features, weight, bias, reference, label_smoothing, agreement, precision
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
        agreement: float,
        precision: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        (vocab, size), output = weight.shape, Weight(weight, precision)
        plain, smoothed = bias.new_zeros(()), bias.new_zeros(())
        d_features = torch.empty_like(features)
        d_weight, d_bias, none = torch.zeros_like(weight), torch.zeros_like(bias), bias.new_zeros(1)
        passes = len(features)
        rows = max(1, _CHUNK.get(features.device.type, _CHUNK["cpu"]) // vocab // passes)
        kernels = _kernels(features) if passes == 1 else None
        for start in range(0, len(reference), rows):
            part = slice(start, start + rows)
            given, ids = features[:, part].flatten(0, 1), reference[part]
            scores = output.scores(given)  # [passes * rows, vocab]
            plain_part, smoothed_part, d_bias_part = (
                _into_gradient(
                    scores.view(passes, -1, vocab), bias, ids, label_smoothing, agreement
                )
                if kernels is None
                else _by_kernel(kernels, scores, bias, ids, label_smoothing)
            )
            plain += plain_part
            smoothed += smoothed_part
            d_features[:, part] = output.backward(scores, none).view(passes, -1, size)
            d_weight += output.gradient(scores, given)
            d_bias += d_bias_part
        ctx.save_for_backward(d_features, d_weight, d_bias)
        ctx.mark_non_differentiable(plain)
        return smoothed, plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _plain: Tensor) -> tuple[Tensor | None, ...]:
        d_features, d_weight, d_bias = ctx.saved_tensors
        return d_features * scale, d_weight * scale, d_bias * scale, None, None, None, None


def _smoothed(plain: Tensor, even: Tensor, label_smoothing: float) -> Tensor:
    """Of the cross-entropy with the reference, and with an even target."""
    return (1 - label_smoothing) * plain + label_smoothing * even


def _by_kernel(
    kernels: Kernels, scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_into_gradient`, one pass, all rows in one launch."""
    losses, evens = kernels.cross_entropy(scores, bias, reference, label_smoothing)
    plain = losses.sum()
    smoothed = _smoothed(plain, evens.sum(), label_smoothing)
    return plain, smoothed, scores.sum(dim=0, dtype=bias.dtype)


def _into_gradient(
    scores: Tensor, bias: Tensor, reference: Tensor, label_smoothing: float, agreement: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn scores into the gradient of the smoothed loss with respect to them, in place.

    A few rows at a time, which on a CPU stay in the cache for all that is done to them.

    Args:
        scores: without bias, `[passes, tokens, vocab]`, in any precision.
        bias: `[vocab]`; its precision is computed in.
        reference: ids, `[tokens]`; PAD counts for nothing.
        label_smoothing: share of the target spread over the vocabulary.
        agreement: weight of how far apart two passes predict.

    Returns:
        cross-entropy with the reference, and the smoothed loss, summed over tokens and passes;
        the gradient of the bias.
    """
    (passes, _, vocab), d_bias = scores.shape, torch.zeros_like(bias)
    at_once = _AT_ONCE.get(scores.device.type, _AT_ONCE["cpu"])
    size = max(1, at_once // vocab // passes)
    counts = (reference != PAD).to(bias.dtype).unsqueeze(1)
    of_reference, mean, apart = (bias.new_zeros(passes, *counts.shape) for _ in range(3))
    room = bias.new_empty(passes, size, vocab)
    for start in range(0, len(reference), size):
        rows = slice(start, start + size)
        ids = reference[rows].view(1, -1, 1).expand(passes, -1, -1)
        part = room[:, : ids.shape[1]]
        log_p = part.copy_(scores[:, rows]).add_(bias).log_softmax(dim=2)
        of_reference[:, rows] = log_p.gather(2, ids)
        mean[:, rows] = log_p.mean(dim=2, keepdim=True)
        if passes == 1:
            torch.exp(log_p, out=part)
        else:
            apart[:, rows] = _divergence(log_p, part, agreement)
        # d loss / d score = p - target, where the target has 1 - e more on the reference.
        part.sub_(label_smoothing / vocab).mul_(counts[rows])
        part.scatter_add_(2, ids, (counts[rows] * (label_smoothing - 1)).expand_as(ids))
        d_bias += part.sum(dim=(0, 1))
        scores[:, rows] = part
    plain, even = -(counts * of_reference).sum(), -(counts * mean).sum()
    smoothed = _smoothed(plain, even, label_smoothing)
    return plain, smoothed + agreement * (counts * apart).sum(), d_bias


def _divergence(log_p: Tensor, gradient: Tensor, agreement: float) -> Tensor:
    """How far what one pass predicts is from what the other does for the same token.

    Args:
        log_p: of both passes, `[2, tokens, vocab]`; overwritten.
        gradient: becomes p, and added to it the gradient of all that is returned, times
            `agreement`, with respect to the scores behind p; the same shape.
        agreement: its weight.

    Returns:
        KL(p || q) for the p of each pass and the q of the other, in nats, `[2, tokens, 1]`.
    """
    p = torch.exp(log_p)
    ratio = log_p.sub_(log_p.flip(0))  # log p/q
    apart: Tensor = torch.linalg.vecdot(p, ratio).unsqueeze(2)
    # d KL(p || q) is p (log p/q - KL), and d KL(q || p) is p - q.
    torch.mul(p, ratio.sub_(apart - 1).mul_(agreement).add_(1), out=gradient)
    gradient.sub_(p.flip(0), alpha=agreement)
    return apart
