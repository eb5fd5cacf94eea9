"""Where the decoder looks: the context c_i it reads at each step.

Both kinds have the same two methods, so that training, search and their tests do not
know which one they use: `keys` prepares what depends on the sentence alone, and
`forward` makes the context for one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGEST_EXPONENT = 40.0  # exp(2 * 40) is finite; tanh is flat there long since


def exp_twice(x: Tensor, factor: float = 2.0) -> Tensor:
    """exp(2x), what tanh is made of: tanh(k + q) = 1 - 2 / (exp(2k) exp(2q) + 1).

    Args:
        x: of any shape, in any part of the sum.
        factor: 1 if `x` holds 2x already.

    Returns:
        Finite numbers above 0, so that no product of two is not a number.
    """
    most = 2.0 * _LARGEST_EXPONENT
    return (x * factor).clamp_(-most, most).exp_()


class AdditiveAttention(nn.Module):
    """e_ij = v_a · tanh(W_a s_{i-1} + U_a h_j); a_i = softmax(e_i) (appendix A.1.2).

    W_a s_{i-1} arrives ready-made as `query`: the decoder multiplies s_{i-1} by W_a and
    by its recurrent weights in one product. V_a y_{i-1} may have been added to it.
    """

    def __init__(self, states: int, hidden: int) -> None:
        super().__init__()
        self.query_size = hidden
        self.project = nn.Linear(states, hidden)  # U_a, with the score's bias
        self.score = nn.Parameter(torch.empty(hidden))  # v_a

    def keys(self, encoder_states: Tensor, summary: Tensor) -> Tensor:
        """U_a h_j, once a sentence: `[batch, src_len, states]` to `[batch, src_len, hidden]`."""
        keys: Tensor = self.project(encoder_states)
        return keys

    def forward(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step's context for several hypotheses of each sentence.

        Args:
            query: W_a s_{i-1}, and what the last word adds to it, `[batch, beam, hidden]`.
            keys: from `keys`, `[batch, src_len, hidden]`.
            encoder_states: h_j, `[batch, src_len, states]`.
            src_mask: True on real tokens, `[batch, src_len]`.

        Returns:
            context c_i, `[batch, beam, states]`, and attention a_ij, `[batch, beam,
            src_len]`: exactly 0 on padding, rows sum to 1.
        """
        mixed = torch.tanh(keys.unsqueeze(1) + query.unsqueeze(2))  # [batch, beam, src_len, hidden]
        energies = mixed @ self.score  # [batch, beam, src_len]
        energies = energies.masked_fill(~src_mask.unsqueeze(1), -torch.inf)
        attention = torch.softmax(energies, dim=2)
        return attention @ encoder_states, attention


class FixedContext(nn.Module):
    """No attention: every step reads the same summary of the sentence.

    The encoder-decoder of Cho et al. (2014) that Bahdanau et al. compare with. Here the
    summary is made from both directions, a stronger baseline than the paper's.
    """

    query_size = 0

    def keys(self, encoder_states: Tensor, summary: Tensor) -> Tensor:
        """The context itself, `[batch, 1, states]`."""
        return summary.unsqueeze(1)

    def forward(
        self, query: Tensor, keys: Tensor, encoder_states: Tensor, src_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `AdditiveAttention.forward`; the attention returned is even over real tokens."""
        beam = query.shape[1]
        even = src_mask / src_mask.sum(dim=1, keepdim=True)
        context = keys.expand(-1, beam, -1)
        return context, even.unsqueeze(1).expand(-1, beam, -1).to(context.dtype)
