"""Forced decoding: what the network makes of a translation that is given.

Teacher forcing on any pair of ids: the log-probability of each target token and what was
looked at for it, with the network's own step, so that the sum is the log-probability the
search would give the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.data.batches import pad_pairs
from nmt.model import Seq2Seq

Ids = Sequence[int]


@dataclass(frozen=True)
class Forced:
    """What the network makes of one given translation.

    Attributes:
        token_log_probs: natural log-probability of each id and of EOS, `[length + 1]`.
        attention: a_ij for each id and for EOS, `[length + 1, src_len]`; None if not asked for.
    """

    token_log_probs: Tensor
    attention: Tensor | None

    @property
    def log_prob(self) -> float:
        """Natural log of the probability of the whole translation, EOS counted."""
        return float(self.token_log_probs.double().sum())


@torch.inference_mode()
def force(
    model: Seq2Seq,
    pairs: Sequence[tuple[Ids, Ids]],
    device: torch.device,
    batch_size: int = 64,
    *,
    looks: bool = True,
) -> list[Forced]:
    """Decode given translations.

    Args:
        model: in evaluation mode.
        pairs: source and target ids without BOS and EOS; no source empty.
        device: where the model is.
        batch_size: pairs side by side; changes results by rounding at most.
        looks: keep the attention.

    Returns:
        One for each pair, in order, on the CPU.
    """
    found: list[Forced | None] = [None] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda n: (len(pairs[n][1]), len(pairs[n][0])))
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = pad_pairs(
            [pairs[n][0] for n in numbers], [pairs[n][1] for n in numbers]
        ).to(device)  # fmt: skip
        features, attention = model(batch.src, batch.src_mask, batch.trg_in)
        logits = model.decoder.logits(features).float()  # [batch, trg_len, vocab]
        chosen = logits.gather(2, batch.trg_out.unsqueeze(2)).squeeze(2)
        log_probs = (chosen - torch.logsumexp(logits, dim=2)).cpu()
        attention = attention.float().cpu() if looks else None
        for row, n in enumerate(numbers):
            src_len, trg_len = len(pairs[n][0]), len(pairs[n][1]) + 1
            looked = None if attention is None else attention[row, :trg_len, :src_len].clone()
            found[n] = Forced(log_probs[row, :trg_len].clone(), looked)
    return [one for one in found if one is not None]
