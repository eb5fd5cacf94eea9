"""Products with a weight matrix, in the precision that training has chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def autocast_precision(device: str, otherwise: torch.dtype) -> torch.dtype:
    """What ``torch.autocast`` asks for on this kind of device, if it is on."""
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return otherwise


@contextlib.contextmanager
def as_given(tensor: Tensor) -> Iterator[None]:
    """Within, types are as they are given, and launches go to the tensor's GPU."""
    device = torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
    with torch.autocast(tensor.device.type, enabled=False), device:
        yield


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

    def scores(self, x: Tensor) -> Tensor:
        """Scores x W^T, `[rows, out]`, in the precision of the product."""
        assert self.weight is not None
        return torch.mm(x.to(self.precision), self.weight.t())

    def forward(self, x: Tensor, plus: Tensor, out: Tensor | None = None) -> Tensor:
        """`plus` + x W^T, `[rows, out]`."""
        assert self.weight is not None
        return self._product(x, self.weight.t(), plus, out)

    def backward(self, d: Tensor, plus: Tensor, out: Tensor | None = None) -> Tensor:
        """`plus` + d W, `[rows, in]`; `out` may be `plus` itself."""
        assert self.weight is not None
        return self._product(d, self.weight, plus, out)

    def _product(self, x: Tensor, weight: Tensor, plus: Tensor, out: Tensor | None) -> Tensor:
        if self.exact:
            return torch.addmm(plus, x, weight, out=out)
        # Widened before it is added: a sum of two precisions takes several times as long.
        wide = torch.mm(x.to(self.precision), weight).to(plus.dtype)
        return torch.add(wide, plus, out=wide if out is None else out)

    def gradient(self, d: Tensor, x: Tensor) -> Tensor:
        """The weight's own gradient, d^T x: one product over all steps and rows of both."""
        d, x = d.flatten(0, -2), x.flatten(0, -2)
        return torch.mm(d.to(self.precision).t(), x.to(self.precision)).to(x.dtype)
