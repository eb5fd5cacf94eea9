"""The decoder: one step of it, used by training's time loop and by the search alike.

The paper's step (appendix A.2.2): the previous state s_{i-1} scores the source (with it the
last word y_{i-1}, if it is to), the context c_i it gives feeds the GRU that makes s_i, and
the readout predicts y_i. What does not depend on s_{i-1} is taken out of the step:
embeddings times their gate weights before it, the readout after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.model.attention import AdditiveAttention, FixedContext
from nmt.model.dropout import Dropout, WordDropout
from nmt.symbols import PAD


@dataclass(frozen=True)
class Memory:
    """What the decoder remembers of its source sentences; constant over the steps.

    Attributes:
        encoder_states: h_j, `[batch, src_len, states]`.
        keys: U_a h_j, `[batch, src_len, attention]`.
        src_mask: True on real tokens, `[batch, src_len]`.
    """

    encoder_states: Tensor
    keys: Tensor
    src_mask: Tensor


class Decoder(nn.Module):
    """GRU decoder with attention, target embedding tied to the output layer.

    Args:
        vocab: target pieces.
        embedding: size of a token's vector, and of the readout.
        states: size of an encoder state, 2 * encoder hidden.
        hidden: GRU units.
        attention: what makes the context.
        dropout: on embeddings and readout.
        word_dropout: share of input tokens whose vector is dropped in training.
        word_in_query: y_{i-1} is part of the attention's query beside s_{i-1}, which has not read
            it yet; the conditional GRU of Sennrich et al. (2017) is another way to that end.
        norm: normalise what a word gives to the gates and what goes into the readout's tanh,
            over their units (Ba et al. 2016). Neither is inside the time loop.
    """

    def __init__(
        self,
        vocab: int,
        embedding: int,
        states: int,
        hidden: int,
        attention: AdditiveAttention | FixedContext,
        dropout: float,
        word_dropout: float,
        word_in_query: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.attention = attention
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=PAD)
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = Dropout(dropout)
        self.start = nn.Linear(states, hidden)
        # With the word's part of the query behind, if the word has one.
        asked = attention.query_size if word_in_query else 0
        self.word_gates = nn.Linear(embedding, 3 * hidden + asked)
        self.context_gates = nn.Linear(states, 3 * hidden, bias=False)
        # The recurrent weights and W_a side by side: one product with s_{i-1} a step.
        self.recurrent = nn.Linear(hidden, 3 * hidden + attention.query_size)
        self.readout = nn.Linear(hidden + states + embedding, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocab))
        self.gates_norm = nn.LayerNorm(3 * hidden) if norm else None
        self.readout_norm = nn.LayerNorm(embedding) if norm else None

    def begin(self, encoder_states: Tensor, summary: Tensor, src_mask: Tensor) -> Memory:
        """Prepare what stays the same over the steps."""
        keys = self.attention.keys(encoder_states, summary)
        return Memory(encoder_states, keys, src_mask)

    def first_state(self, summary: Tensor) -> Tensor:
        """s_0 = tanh(W_s [summary]), `[batch, hidden]`.

        The paper uses the backward state at the first token alone; the forward state
        at the last costs nothing more.
        """
        return torch.tanh(self.start(summary))

    def embed(self, trg_in: Tensor) -> Tensor:
        """Vectors of input tokens, dropout applied: `[..., embedding]`."""
        embedded: Tensor = self.dropout(self.word_dropout(self.embedding(trg_in)))
        return embedded

    def from_words(self, embedded: Tensor) -> Tensor:
        """What input tokens give to the gates reset, update, candidate, biases included.

        Behind it what they add to the query, if they do: `[..., 3*hidden (+ query)]`.
        """
        given: Tensor = self.word_gates(embedded)
        if self.gates_norm is None:
            return given
        three = 3 * self.hidden
        gates, asked = torch.split(given, [three, given.shape[-1] - three], dim=-1)
        normed = self.gates_norm(gates).to(given.dtype)
        return torch.cat([normed, asked], dim=-1) if asked.shape[-1] else normed

    def step(
        self, word_gates: Tensor, state: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the recurrence, for `beam` hypotheses of each sentence.

        Args:
            word_gates: of y_{i-1}, from `from_words`, `[batch, beam, 3*hidden (+ query)]`.
            state: s_{i-1}, `[batch, beam, hidden]`.
            memory: of the `batch` sentences.

        Returns:
            s_i `[batch, beam, hidden]`, c_i `[batch, beam, states]` and a_ij
            `[batch, beam, src_len]`.

        The GRU is that of PyTorch and cuDNN: the reset gate acts on U s_{i-1}, after
        the product, where the paper's acts on s_{i-1} before it.
        """
        recurrent = self.recurrent(state)
        three = 3 * self.hidden
        own, query = recurrent.split([three, self.attention.query_size], dim=2)
        if word_gates.shape[2] > three:
            query = query + word_gates[..., three:]
        context, attention = self.attention(
            query, memory.keys, memory.encoder_states, memory.src_mask
        )
        given = word_gates[..., :three] + self.context_gates(context)
        reset_update = torch.sigmoid(given[..., : 2 * self.hidden] + own[..., : 2 * self.hidden])
        reset, update = reset_update.chunk(2, dim=2)
        candidate = torch.tanh(given[..., 2 * self.hidden :] + reset * own[..., 2 * self.hidden :])
        return candidate + update * (state - candidate), context, attention

    def read_out(self, state: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        """t_i, what the output layer sees: `[..., embedding]`.

        tanh of one product over s_i, c_i and y_{i-1}; the paper uses s_{i-1} and a maxout.
        """
        together = torch.cat([state, context, embedded], dim=-1)
        read = self.readout(together)
        if self.readout_norm is not None:
            read = self.readout_norm(read)
        features: Tensor = self.dropout(torch.tanh(read))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Scores of all pieces, `[..., vocab]`, by the tied embedding (Press & Wolf 2017)."""
        return nn.functional.linear(features, self.embedding.weight, self.output_bias)
