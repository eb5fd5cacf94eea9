"""Dropping whole words in training (Gal & Ghahramani 2016; Sennrich & Zhang 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WordDropout(nn.Module):
    """Zero the whole vector of a random share of tokens; no effect in evaluation.

    The vectors kept are scaled up as in ordinary dropout, so that their sum is right
    on average.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, embedded: Tensor) -> Tensor:
        """Map `[batch, length, embedding]` to the same shape."""
        if not self.training or self.share == 0:
            return embedded
        kept = torch.rand(embedded.shape[:2], device=embedded.device) >= self.share
        return embedded * (kept / (1 - self.share)).unsqueeze(2).to(embedded.dtype)
