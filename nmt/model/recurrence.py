"""The teacher-forced time loop: the decoder's step, once for each target token."""

from __future__ import annotations

import torch
from torch import Tensor

from nmt.model.decoder import Decoder, Memory


def unroll(
    decoder: Decoder, word_gates: Tensor, first_state: Tensor, memory: Memory
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the step over a whole target sentence whose tokens are given.

    Args:
        decoder: owner of the step.
        word_gates: of trg_in, `[batch, trg_len, 3*hidden]`.
        first_state: s_0, `[batch, hidden]`.
        memory: of the batch.

    Returns:
        States s_1..s_T `[batch, trg_len, hidden]`, contexts `[batch, trg_len, states]`,
        attention `[batch, trg_len, src_len]`.
    """
    state = first_state.unsqueeze(1)  # [batch, 1, hidden]: a beam of one
    states, contexts, attentions = [], [], []
    for gates in torch.split(word_gates, 1, dim=1):
        state, context, attention = decoder.step(gates, state, memory)
        states.append(state)
        contexts.append(context)
        attentions.append(attention)
    return torch.cat(states, dim=1), torch.cat(contexts, dim=1), torch.cat(attentions, dim=1)
