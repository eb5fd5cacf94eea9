"""The loss: cross-entropy in nats per target token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.batches import Batch
from nmt.model import Seq2Seq
from nmt.symbols import PAD


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


def batch_loss(model: Seq2Seq, batch: Batch, label_smoothing: float) -> Loss:
    """Loss of a batch, summed; the caller divides by all tokens of its update.

    With smoothing e the target is 1-e on the reference token and e spread evenly over
    the vocabulary (Szegedy et al. 2016).
    """
    features, _ = model(batch.src, batch.src_mask, batch.trg_in)
    real = batch.trg_out != PAD
    # The output layer sees real tokens only: padding would cost a product with the
    # whole vocabulary.
    logits = model.decoder.logits(features[real]).float()  # [tokens, vocab]
    log_total = torch.logsumexp(logits, dim=1)
    reference = logits.gather(1, batch.trg_out[real].unsqueeze(1)).squeeze(1)
    plain = (log_total - reference).sum()
    smoothed = plain
    if label_smoothing:
        even = (log_total - logits.mean(dim=1)).sum()
        smoothed = (1 - label_smoothing) * plain + label_smoothing * even
    return Loss(smoothed, plain.detach(), batch.trg_tokens)
