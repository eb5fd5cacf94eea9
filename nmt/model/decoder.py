"""The decoder (appendix A.2.2): one step, and what is computed outside of the time loop.

Step i: the previous state s_{i-1} (optionally with the previous word y_{i-1}) attends to the
source, the context c_i is an input of the GRU that computes s_i, and the readout computes t_i
from s_i, c_i and y_{i-1}. `step` defines the recurrence. `input_gates` runs before the loop and
`read_out` after it, over all target positions at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nmt.config.schema import ModelConfig
from nmt.model.attention import AdditiveAttention, FixedContext
from nmt.model.dropout import Dropout, WordDropout
from nmt.symbols import PAD


@dataclass(frozen=True)
class Memory:
    """The encoded source sentences, constant over the decoder steps.

    Attributes:
        encoder_states: h_j, `[batch, src_len, state_size]`.
        keys: U_a h_j, `[batch, src_len, attention]`.
        src_mask: True on real tokens, `[batch, src_len]`.
    """

    encoder_states: Tensor
    keys: Tensor
    src_mask: Tensor


class Decoder(nn.Module):
    """GRU decoder with attention; the target embedding is tied to the output layer.

    Args:
        vocab: number of target pieces.
        config: `attention_query` adds V_a y_{i-1} to the query W_a s_{i-1}, since s_{i-1} does
            not depend on y_{i-1} (Sennrich et al. 2017 use two GRU cells for this);
            `layer_norm` normalises the word's part of the gates and the readout before its tanh
            (Ba et al. 2016), both outside of the time loop.
        dropout: rate on embeddings and readout.
    """

    def __init__(self, vocab: int, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        embedding, state_size = config.embedding_dim, 2 * config.encoder_hidden
        attends = config.attention == "additive"
        self.hidden = config.decoder_hidden
        self.gate_size = 3 * self.hidden  # reset, update, candidate
        self.attention: AdditiveAttention | FixedContext = (
            AdditiveAttention(state_size, config.attention_hidden) if attends else FixedContext()
        )
        query_size = self.attention.query_size
        self.word_query_size = query_size if config.attention_query == "state+word" else 0
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=PAD)
        self.word_dropout = WordDropout(config.word_dropout)
        self.dropout = Dropout(dropout)
        self.initial = nn.Linear(state_size, self.hidden)  # W_s
        self.word_gates = nn.Linear(embedding, self.gate_size + self.word_query_size)  # W, V_a
        self.context_gates = nn.Linear(state_size, self.gate_size, bias=False)  # C
        self.recurrent = nn.Linear(self.hidden, self.gate_size + query_size)  # U, W_a
        self.readout = nn.Linear(self.hidden + state_size + embedding, embedding)
        self.output_bias = nn.Parameter(torch.zeros(vocab))
        self.gates_norm = nn.LayerNorm(self.gate_size) if config.layer_norm else None
        self.readout_norm = nn.LayerNorm(embedding) if config.layer_norm else None

    def memory(self, encoder_states: Tensor, summary: Tensor, src_mask: Tensor) -> Memory:
        """Return what the steps read of the encoded source."""
        return Memory(encoder_states, self.attention.keys(encoder_states, summary), src_mask)

    def initial_state(self, summary: Tensor) -> Tensor:
        """Return s_0 = tanh(W_s [summary]), `[batch, hidden]`.

        The paper uses the backward state at the first token only; here the forward state at the
        last token is an input too.
        """
        return torch.tanh(self.initial(summary))

    def embed(self, trg_in: Tensor) -> Tensor:
        """Return the embeddings of input tokens with dropout, `[..., embedding]`."""
        embedded: Tensor = self.dropout(self.word_dropout(self.embedding(trg_in)))
        return embedded

    def input_gates(self, embedded: Tensor) -> Tensor:
        """Return the pre-activations that depend on the input words only.

        Args:
            embedded: from `embed`, `[..., embedding]`.

        Returns:
            reset, update and candidate, biases included, followed by V_a y_{i-1} if the word is
            part of the query, `[..., gate_size + word_query_size]`.
        """
        gates: Tensor = self.word_gates(embedded)
        if self.gates_norm is None:
            return gates
        gates, word_query = torch.split(gates, [self.gate_size, self.word_query_size], dim=-1)
        normed = self.gates_norm(gates).to(word_query.dtype)
        return torch.cat([normed, word_query], dim=-1) if self.word_query_size else normed

    def step(
        self, input_gates: Tensor, state: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute one step for `beam` hypotheses of each sentence.

        Args:
            input_gates: of y_{i-1}, from `input_gates`,
                `[batch, beam, gate_size + word_query_size]`.
            state: s_{i-1}, `[batch, beam, hidden]`.
            memory: of the `batch` sentences.

        Returns:
            s_i `[batch, beam, hidden]`, c_i `[batch, beam, state_size]` and a_ij
            `[batch, beam, src_len]`.

        The gates are those of PyTorch and cuDNN: the reset gate multiplies U s_{i-1}, where the
        paper's multiplies s_{i-1}; the update gate is the share of s_{i-1} that is kept, which is
        1 - z_i in the paper.
        """
        hidden_gates, query = torch.split(
            self.recurrent(state), [self.gate_size, self.attention.query_size], dim=2
        )
        if self.word_query_size:
            query = query + input_gates[..., self.gate_size :]
        context, attention = self.attention(
            query, memory.keys, memory.encoder_states, memory.src_mask
        )
        gates = input_gates[..., : self.gate_size] + self.context_gates(context)
        two = 2 * self.hidden
        reset, update = torch.sigmoid(gates[..., :two] + hidden_gates[..., :two]).chunk(2, dim=2)
        candidate = torch.tanh(gates[..., two:] + reset * hidden_gates[..., two:])
        return candidate + update * (state - candidate), context, attention

    def read_out(self, state: Tensor, context: Tensor, embedded: Tensor) -> Tensor:
        """Return the features t_i of the output layer, `[..., embedding]`.

        t_i = tanh(linear(s_i, c_i, y_{i-1})); the paper uses s_{i-1} and a maxout layer.
        """
        pre_activation = self.readout(torch.cat([state, context, embedded], dim=-1))
        if self.readout_norm is not None:
            pre_activation = self.readout_norm(pre_activation)
        features: Tensor = self.dropout(torch.tanh(pre_activation))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Return scores of all pieces, `[..., vocab]`; weights tied (Press & Wolf 2017)."""
        return nn.functional.linear(features, self.embedding.weight, self.output_bias)
