"""Element dropout and word dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16  # resolution of the rate: 16 random bits per element


class Dropout(nn.Module):
    """Zero random elements in training and scale the others by 1 / (1 - rate).

    Srivastava et al. (2014). On a CPU `torch.nn.functional.dropout` draws one random number per
    element (15 ns); here one 64-bit draw serves four elements, which takes a quarter of the time.

    Args:
        rate: probability of zeroing an element; rounded to a multiple of 1/65,536 on a CPU.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape and type of `x`."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return functional.dropout(x, self.rate)
        return x * _keep_mask(x.shape, self.rate).to(x.dtype).mul_(1 / (1 - self.rate))


class WordDropout(nn.Module):
    """Zero the whole vectors of random tokens in training and scale the others.

    Gal & Ghahramani (2016); Sennrich & Zhang (2019).

    Args:
        rate: probability of zeroing a token.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, embedded: Tensor) -> Tensor:
        """Map `[batch, length, embedding]` to the same shape."""
        if not self.training or self.rate == 0:
            return embedded
        keep = torch.rand(embedded.shape[:2], device=embedded.device) >= self.rate
        return embedded * (keep / (1 - self.rate)).unsqueeze(2).to(embedded.dtype)


def _keep_mask(shape: torch.Size, rate: float) -> Tensor:
    """Return a boolean CPU tensor, True with probability 1 - `rate`."""
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    threshold = min(round(rate * _LEVELS), _LEVELS - 1) - _LEVELS // 2  # int16 is signed
    return (bits.view(torch.int16)[:count] >= threshold).view(shape)
