"""The bidirectional encoder: one state h_j per source token (section 3.2, appendix A.2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.config.schema import ModelConfig
from nmt.model.dropout import Dropout, WordDropout
from nmt.model.fast.recurrence import RecurrenceInputs, recurrence
from nmt.symbols import PAD

_DIRECTIONS = ("", "_reverse")  # suffixes of the parameter names of nn.GRU
_SATURATED = 100.0  # pre-activation whose sigmoid is 1, whatever the network adds to it


class Encoder(nn.Module):
    """Bidirectional GRU over embedded source tokens.

    Args:
        vocab: number of source pieces.
        config: `source_bridge` adds the projected embedding of a token to its state (source-side
            bridging, Kuang et al. 2018); `layer_norm` normalises the states (Ba et al. 2016).
            Both apply with attention only.
        dropout: rate on embeddings, between layers, and on the states.
    """

    def __init__(self, vocab: int, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        embedding, state_size = config.embedding_dim, 2 * config.encoder_hidden
        attends = config.attention == "additive"
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=PAD)
        self.word_dropout = WordDropout(config.word_dropout)
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(
            embedding,
            config.encoder_hidden,
            config.encoder_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if config.encoder_layers > 1 else 0.0,
        )
        bridge = attends and config.source_bridge
        self.bridge = nn.Linear(embedding, state_size, bias=False) if bridge else None
        self.norm = nn.LayerNorm(state_size) if attends and config.layer_norm else None

    def forward(self, src: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            src: ids, padded with PAD at the end, `[batch, src_len]`.
            src_mask: True on real tokens, `[batch, src_len]`; at least one per sentence.

        Returns:
            encoder_states: h_j = [forward state; backward state], plus the bridge, normalised
                with layer norm; zero on padding, `[batch, src_len, 2*hidden]`.
            summary: the forward state at the last token and the backward state at the first,
                `[batch, 2*hidden]`.
        """
        embedded = self.dropout(self.word_dropout(self.embedding(src)))
        run = self._run_recurrence if embedded.is_cuda else self._run_packed
        encoder_states, summary = run(embedded, src_mask)
        if self.bridge is not None:
            encoder_states = encoder_states + self.bridge(embedded) * src_mask.unsqueeze(2)
        if self.norm is not None:
            encoder_states = self.norm(encoder_states) * src_mask.unsqueeze(2)
        return self.dropout(encoder_states), summary

    def _run_packed(self, embedded: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run `nn.GRU` on packed sequences: states `[batch, src_len, 2*hidden]` and summary.

        Packing starts the backward GRU at the last real token of each sentence.
        """
        packed = pack_padded_sequence(
            embedded, src_mask.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        states, last = self.gru(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=embedded.shape[1])
        return padded, torch.cat([last[-2], last[-1]], dim=1)

    def _run_recurrence(self, embedded: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Run each layer and direction with the decoder's recurrence, without attention.

        Under autocast cuDNN's GRU computes in float16 whatever type autocast has. Packing needs
        the lengths on the host, which a CUDA graph cannot provide.
        """
        states, last = embedded, embedded
        for layer in range(self.gru.num_layers):
            if layer:
                states = nn.functional.dropout(states, self.gru.dropout, self.training)
            outputs = [
                self._run_direction(states, src_mask, f"l{layer}{direction}")
                for direction in _DIRECTIONS
            ]
            states = torch.cat([output for output, _ in outputs], dim=2) * src_mask.unsqueeze(2)
            last = torch.cat([final for _, final in outputs], dim=1)
        return states, last

    def _run_direction(self, x: Tensor, src_mask: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Return the states of one layer and direction, `[batch, src_len, hidden]`, and the last.

        On padding the update gate is 1, so the state does not change.
        """
        input_weight, hidden_weight, input_bias, hidden_bias = (
            getattr(self.gru, f"{parameter}_{name}")
            for parameter in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates = nn.functional.linear(x, input_weight, input_bias)
        hidden = self.gru.hidden_size
        keep_state = torch.zeros_like(gates[0, 0])
        keep_state[hidden : 2 * hidden] = _SATURATED
        gates = torch.addcmul(gates, (~src_mask).unsqueeze(2).to(gates.dtype), keep_state)
        reverse = name.endswith("_reverse")
        initial_state = hidden_weight.new_zeros(len(x), hidden)
        states, _, _ = recurrence(
            RecurrenceInputs(
                gates.flip(1) if reverse else gates, initial_state, hidden_weight, hidden_bias
            )
        )
        return states.flip(1) if reverse else states, states[:, -1]
