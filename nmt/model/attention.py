"""Attention (section 3.1) and the fixed-context baseline.

Both classes have the same interface: `keys` computes what depends on the source sentence only,
`forward` computes the context vector c_i of one decoder step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MAX_EXPONENT = 80.0  # exp(±80) is finite and not 0 in float32, so no product is inf * 0


def exp_2x(x: Tensor, factor: float = 2.0) -> Tensor:
    """Return exp(2x), clamped to a finite range.

    The fast implementations use tanh(k + q) = 1 - 2 / (exp(2k) exp(2q) + 1). |x| is clamped at
    40, where tanh(x) is ±1, so that the product of two results is never NaN.

    Args:
        x: any shape.
        factor: 1 if `x` holds 2x already.
    """
    return (x * factor).clamp_(-_MAX_EXPONENT, _MAX_EXPONENT).exp_()


class AdditiveAttention(nn.Module):
    """e_ij = v_a · tanh(W_a s_{i-1} + U_a h_j) (A.1.2), a_i = softmax(e_i) (eq. 6).

    W_a s_{i-1} is an argument, `query`: the decoder computes it together with its recurrent
    product. With ``attention_query: state+word`` the decoder adds V_a y_{i-1} to it.

    Args:
        state_size: size of an encoder state h_j.
        hidden: units of the score.
    """

    def __init__(self, state_size: int, hidden: int) -> None:
        super().__init__()
        self.query_size = hidden
        self.project = nn.Linear(state_size, hidden)  # U_a and a bias
        self.score = nn.Parameter(torch.empty(hidden))  # v_a

    def keys(self, encoder_states: Tensor, summary: Tensor) -> Tensor:
        """Return U_a h_j, `[batch, src_len, hidden]`."""
        keys: Tensor = self.project(encoder_states)
        return keys

    def forward(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend once for each hypothesis of each sentence.

        Args:
            query: W_a s_{i-1}, `[batch, beam, hidden]`.
            keys: from `keys`, `[batch, src_len, hidden]`.
            encoder_states: h_j, `[batch, src_len, state_size]`.
            src_mask: True on real tokens, `[batch, src_len]`.

        Returns:
            context c_i = sum_j a_ij h_j (eq. 5), `[batch, beam, state_size]`.
            attention a_ij, `[batch, beam, src_len]`; 0 on padding, rows sum to 1.
        """
        hidden = torch.tanh(keys.unsqueeze(1) + query.unsqueeze(2))  # [batch, beam, src_len, h]
        energies = hidden @ self.score  # [batch, beam, src_len]
        energies = energies.masked_fill(~src_mask.unsqueeze(1), -torch.inf)
        attention = torch.softmax(energies, dim=2)
        return attention @ encoder_states, attention


class FixedContext(nn.Module):
    """The baseline without attention: c_i is the same vector at every step.

    This is the encoder-decoder of Cho et al. (2014). The vector holds the last states of both
    encoder directions; the baseline of the paper has one direction.
    """

    query_size = 0

    def keys(self, encoder_states: Tensor, summary: Tensor) -> Tensor:
        """Return the context vector, `[batch, 1, state_size]`."""
        return summary.unsqueeze(1)

    def forward(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `AdditiveAttention.forward`; the attention is uniform over the real tokens."""
        beam = query.shape[1]
        uniform = src_mask / src_mask.sum(dim=1, keepdim=True)
        context = keys.expand(-1, beam, -1)
        return context, uniform.unsqueeze(1).expand(-1, beam, -1).to(context.dtype)
