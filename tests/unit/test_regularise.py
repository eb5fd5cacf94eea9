"""What dropout leaves: how much, scaled how, and the same again from the same seed."""

from __future__ import annotations

import pytest
import torch

from nmt.model.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.999])
def test_the_share_asked_for_is_dropped_and_the_rest_scaled_up(share: float) -> None:
    torch.manual_seed(1)
    count = 400_003  # not a multiple of what is drawn at once
    dropped = Dropout(share)(torch.ones(count))
    kept = dropped[dropped != 0]
    error = (share * (1 - share) / count) ** 0.5
    assert 1 - len(kept) / count == pytest.approx(share, abs=4 * error + 2**-17)
    assert torch.allclose(kept, torch.tensor(1 / (1 - share)))


def test_neighbours_do_not_depend_on_one_another() -> None:
    """Four numbers share one draw of 64 bits: none of its 16 says anything about others."""
    torch.manual_seed(2)
    kept = (Dropout(0.3)(torch.ones(200_000, 8)) != 0).double()
    apart = torch.corrcoef(kept.t()) - torch.eye(8)
    assert apart.abs().max() < 5 / 200_000**0.5


def test_the_gradient_passes_where_the_number_did() -> None:
    torch.manual_seed(3)
    x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, (dropped != 0).double() * 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_one_seed_gives_one_result_in_the_type_that_was_given(dtype: torch.dtype) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(Dropout(0.4)(torch.ones(9, 5, dtype=dtype)))
    assert torch.equal(*results)
    assert results[0].dtype == dtype


def test_nothing_is_dropped_in_evaluation_or_without_a_share() -> None:
    x = torch.randn(4, 5)
    assert Dropout(0.9).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_nothing_at_all_can_be_given() -> None:
    assert Dropout(0.5)(torch.ones(0, 3)).shape == (0, 3)
