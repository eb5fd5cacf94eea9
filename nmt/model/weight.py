"""Products with a weight matrix, in the precision that training has chosen."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_precision(device: str, otherwise: torch.dtype) -> torch.dtype:
    """What ``torch.autocast`` asks for on this kind of device, if it is on."""
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return otherwise


class Weight:
    """A weight matrix as many products use it: rounded once, if at all.

    What is added and what is returned has the weight's own precision.

    Args:
        weight: W, `[out, in]`; None where there is none, and nothing to multiply with.
        precision: of the products.
    """

    def __init__(self, weight: Tensor | None, precision: torch.dtype) -> None:
        self.exact = weight is None or weight.dtype == precision
        self.precision = precision
        self.weight = None if weight is None else weight.to(precision)

    def forward(self, x: Tensor, plus: Tensor) -> Tensor:
        """`plus` + x W^T, `[rows, out]`."""
        assert self.weight is not None
        if self.exact:
            return torch.addmm(plus, x, self.weight.t())
        return torch.mm(x.to(self.precision), self.weight.t()) + plus

    def backward(self, d: Tensor, plus: Tensor) -> Tensor:
        """`plus` + d W, `[rows, in]`."""
        assert self.weight is not None
        if self.exact:
            return torch.addmm(plus, d, self.weight)
        return torch.mm(d.to(self.precision), self.weight) + plus

    def gradient(self, d: Tensor, x: Tensor) -> Tensor:
        """The weight's own gradient, d^T x: one product over all steps and rows of both."""
        d, x = d.flatten(0, -2), x.flatten(0, -2)
        return torch.mm(d.to(self.precision).t(), x.to(self.precision)).to(d.dtype)
