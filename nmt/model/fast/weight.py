"""Products with a weight matrix in the precision of autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def autocast_precision(device: str, default: torch.dtype) -> torch.dtype:
    """Return the type of ``torch.autocast`` on this device type, or `default` if it is off."""
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return default


@contextlib.contextmanager
def no_autocast(tensor: Tensor) -> Iterator[None]:
    """Context manager that disables autocast and makes the GPU of `tensor` current."""
    device = torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
    with torch.autocast(tensor.device.type, enabled=False), device:
        yield


class Weight:
    """A weight matrix W, rounded once to the precision of its products.

    Results and the tensors added to them have the type of the original weight.

    Args:
        weight: W, `[out, in]`.
        precision: type of the products.
    """

    def __init__(self, weight: Tensor, precision: torch.dtype) -> None:
        self.exact = weight.dtype == precision
        self.precision = precision
        self.weight = weight.to(precision)

    def scores(self, x: Tensor) -> Tensor:
        """Return x W^T, `[rows, out]`, in the precision of the product."""
        return torch.mm(x.to(self.precision), self.weight.t())

    def product(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Return x W^T, `[rows, out]`."""
        return self._multiply(x, self.weight.t(), out)

    def transposed_product(self, d: Tensor, out: Tensor | None = None) -> Tensor:
        """Return d W, `[rows, in]`."""
        return self._multiply(d, self.weight, out)

    def forward(self, x: Tensor, plus: Tensor, out: Tensor | None = None) -> Tensor:
        """Return `plus` + x W^T, `[rows, out]`; `out` may be `plus`."""
        return self._add_product(x, self.weight.t(), plus, out)

    def backward(self, d: Tensor, plus: Tensor, out: Tensor | None = None) -> Tensor:
        """Return `plus` + d W, `[rows, in]`; `out` may be `plus`."""
        return self._add_product(d, self.weight, plus, out)

    def _multiply(self, x: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
        if self.exact:
            return torch.mm(x, weight, out=out)
        product = torch.mm(x.to(self.precision), weight)
        return product.to(x.dtype) if out is None else out.copy_(product)

    def _add_product(self, x: Tensor, weight: Tensor, plus: Tensor, out: Tensor | None) -> Tensor:
        if self.exact:
            return torch.addmm(plus, x, weight, out=out)
        # Convert before adding: a sum of two types takes several times as long on a CPU.
        product = torch.mm(x.to(self.precision), weight).to(plus.dtype)
        return torch.add(product, plus, out=product if out is None else out)

    def gradient(self, d: Tensor, x: Tensor) -> Tensor:
        """Return dL/dW = d^T x, summed over all rows (and steps) of `d` and `x`."""
        d, x = d.flatten(0, -2), x.flatten(0, -2)
        return torch.mm(d.to(self.precision).t(), x.to(self.precision)).to(x.dtype)
