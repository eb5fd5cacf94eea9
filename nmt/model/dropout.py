"""Dropping numbers and whole words in training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16  # of a share, which 16 random bits decide


class Dropout(nn.Module):
    """Zero a random share of numbers (Srivastava et al. 2014); no effect in evaluation.

    The numbers kept are scaled up, so that a sum of them is right on average. PyTorch's own
    takes a CPU 15 ns a number to draw what is kept, a tenth of a whole training; here four numbers
    share 64 random bits, which takes a fourth of that.

    Args:
        share: dropped, 0 to 1; on a CPU to the nearest 65,536th.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Map a tensor to one of the same shape."""
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.share)
        return x * _kept(x.shape, self.share).to(x.dtype).mul_(1 / (1 - self.share))


class WordDropout(nn.Module):
    """Zero the whole vector of a random share of tokens; no effect in evaluation.

    The vectors kept are scaled up as in ordinary dropout (Gal & Ghahramani 2016; Sennrich &
    Zhang 2019).
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


def _kept(shape: torch.Size, share: float) -> Tensor:
    """True with a probability of 1 - `share`, drawn from torch's random state on the CPU."""
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    least = min(round(share * _LEVELS), _LEVELS - 1) - _LEVELS // 2  # of a signed number
    return (bits.view(torch.int16)[:count] >= least).view(shape)
