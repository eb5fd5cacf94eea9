"""The encoder's own loop against PyTorch's GRU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.model.encoder import Encoder
from nmt.model.gru import both_ways
from nmt.symbols import PAD

LENGTHS = torch.tensor([6, 2, 1, 4])


def network(layers: int = 1) -> nn.GRU:
    torch.manual_seed(3)
    return nn.GRU(5, 7, layers, batch_first=True, bidirectional=True).double()


def inputs() -> Tensor:
    torch.manual_seed(4)
    return torch.randn(4, 6, 5, dtype=torch.double, requires_grad=True)


def mask() -> Tensor:
    return (torch.arange(6) < LENGTHS.unsqueeze(1)).unsqueeze(2)


def by_pytorch(gru: nn.GRU, x: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x.shape[1])
    return states


def test_states_and_gradients_are_those_of_pytorch() -> None:
    gru, x = network(layers=2), inputs()
    found = both_ways(gru, 1, both_ways(gru, 0, x, LENGTHS), LENGTHS) * mask()
    expected = by_pytorch(gru, x)
    torch.testing.assert_close(found, expected)
    weights, given = torch.randn_like(found), [x, *gru.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
    )


def test_backward_is_the_gradient_of_forward() -> None:
    gru, x = network(), inputs()
    assert torch.autograd.gradcheck(lambda x: both_ways(gru, 0, x, LENGTHS) * mask(), (x,))


def test_what_stands_on_padding_changes_nothing() -> None:
    gru, x = network(), inputs().detach()
    noisy = torch.where(mask(), x, torch.full_like(x, 1e6))
    assert torch.equal(
        both_ways(gru, 0, x, LENGTHS) * mask(), both_ways(gru, 0, noisy, LENGTHS) * mask()
    )


def test_bfloat16_products_stay_near_in_float32() -> None:
    gru, x = network().float(), inputs().float().detach()
    exact = both_ways(gru, 0, x, LENGTHS) * mask()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = both_ways(gru, 0, x, LENGTHS) * mask()
    assert rounded.dtype == torch.float32
    error = float((rounded - exact).detach().abs().max())
    assert 0 < error < 0.02


@pytest.mark.parametrize("layers", [1, 2])
def test_the_encoder_gives_what_it_gives_by_cudnn(layers: int) -> None:
    """Both ways of computing it, on the CPU, where PyTorch's GRU runs too."""
    torch.manual_seed(5)
    encoder = Encoder(20, 6, 7, layers, dropout=0.5, word_dropout=0.5).double().eval()
    src = torch.randint(3, 20, (4, 6))
    real = torch.arange(6) < LENGTHS.unsqueeze(1)
    src[~real] = PAD
    states, summary = encoder(src, real, LENGTHS)
    embedded = encoder.embedding(src)
    torch.testing.assert_close((states, summary), encoder._by_cudnn(embedded, LENGTHS))
    assert bool((states[~real] == 0).all())
