"""Dropout: rate, scale, independence, gradient, reproducibility."""

from __future__ import annotations

import pytest
import torch

from nmt.model.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.35, 0.5, 0.999])
def test_elements_are_zeroed_at_the_rate_and_the_others_scaled(rate: float) -> None:
    torch.manual_seed(1)
    count = 400_003  # not a multiple of the four elements per draw
    dropped = Dropout(rate)(torch.ones(count))
    kept = dropped[dropped != 0]
    error = (rate * (1 - rate) / count) ** 0.5
    assert 1 - len(kept) / count == pytest.approx(rate, abs=4 * error + 2**-17)
    assert torch.allclose(kept, torch.tensor(1 / (1 - rate)))


def test_neighbouring_elements_are_independent() -> None:
    """Four elements use one draw of 64 bits."""
    torch.manual_seed(2)
    kept = (Dropout(0.3)(torch.ones(200_000, 8)) != 0).double()
    correlation = torch.corrcoef(kept.t()) - torch.eye(8)
    assert correlation.abs().max() < 5 / 200_000**0.5


def test_the_gradient_has_the_same_mask() -> None:
    torch.manual_seed(3)
    x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, (dropped != 0).double() * 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_seed_determines_the_result_and_the_type_is_kept(dtype: torch.dtype) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(Dropout(0.4)(torch.ones(9, 5, dtype=dtype)))
    assert torch.equal(*results)
    assert results[0].dtype == dtype


def test_evaluation_and_rate_zero_return_the_input() -> None:
    x = torch.randn(4, 5)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_an_empty_tensor_is_allowed() -> None:
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
