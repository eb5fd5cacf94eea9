"""The encoder: one state h_j for each source token, read from both sides (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.model.dropout import Dropout, WordDropout
from nmt.model.fast import recurrence_cuda
from nmt.symbols import PAD

_WAYS = ("", "_reverse")  # behind the names of a layer's weights
_SHUT = 100.0  # the sigmoid of it is 1, whatever a network adds to it


class Encoder(nn.Module):
    """Bidirectional GRU over embedded source tokens.

    Args:
        vocab: source pieces.
        embedding: size of a token's vector.
        hidden: GRU units in each direction.
        layers: stacked bidirectional layers.
        dropout: on embeddings, between layers, and on the states.
        word_dropout: share of tokens whose whole vector is dropped in training.
        bridge: add a token's own vector, projected, to its state: a short way from a word to its
            translation (source-side bridging, Kuang et al. 2018).
        norm: normalise what the attention reads, for each token over its numbers (Ba et al. 2016).
    """

    def __init__(
        self,
        vocab: int,
        embedding: int,
        hidden: int,
        layers: int,
        dropout: float,
        word_dropout: float,
        bridge: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=PAD)
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(
            embedding,
            hidden,
            layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.bridge = nn.Linear(embedding, 2 * hidden, bias=False) if bridge else None
        self.norm = nn.LayerNorm(2 * hidden) if norm else None

    def forward(self, src: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            src: ids, PAD behind each sentence, `[batch, src_len]`.
            src_mask: True where a real token is, `[batch, src_len]`; every sentence
                has at least one.

        Returns:
            encoder_states: h_j = [forward state; backward state], with what the bridge adds,
                normalised if they are to be, zero on padding, `[batch, src_len, 2*hidden]`.
            summary: the forward state at the last token and the backward state at the
                first, each of which has read the whole sentence, `[batch, 2*hidden]`.
        """
        embedded = self.dropout(self.word_dropout(self.embedding(src)))
        if recurrence_cuda.is_for(embedded):
            encoder_states, summary = self._step_by_step(embedded, src_mask)
        else:
            encoder_states, summary = self._packed(embedded, src_mask)
        if self.bridge is not None:
            encoder_states = encoder_states + self.bridge(embedded) * src_mask.unsqueeze(2)
        if self.norm is not None:
            encoder_states = self.norm(encoder_states) * src_mask.unsqueeze(2)
        return self.dropout(encoder_states), summary

    def _packed(self, embedded: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """PyTorch's own loop.

        Packing makes the backward GRU start at each sentence's own last token, so that a
        padded neighbour changes nothing.
        """
        packed = pack_padded_sequence(
            embedded, src_mask.sum(dim=1), batch_first=True, enforce_sorted=False
        )
        states, last = self.gru(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=embedded.shape[1])
        return padded, torch.cat([last[-2], last[-1]], dim=1)

    def _step_by_step(self, embedded: Tensor, src_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's recurrence without attention, in each direction.

        cuDNN's loop would round to float16 under autocast, whatever that is told to round
        to, and depend on lengths that the host knows, which a recording can't.
        """
        between = self.gru.dropout
        states, last = embedded, embedded
        for layer in range(self.gru.num_layers):
            if layer:
                states = nn.functional.dropout(states, between, self.training)
            read = [self._direction(states, src_mask, f"l{layer}{way}") for way in _WAYS]
            states = torch.cat([each for each, _ in read], dim=2) * src_mask.unsqueeze(2)
            last = torch.cat([each for _, each in read], dim=1)
        return states, last

    def _direction(self, x: Tensor, src_mask: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """States `[batch, src_len, hidden]` of one layer read one way, and the last of them.

        On padding the update gate is shut: the state stays what it is, which is zero where
        reading begins there.
        """
        into, own, into_bias, own_bias = (
            getattr(self.gru, f"{which}_{name}")
            for which in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        gates = nn.functional.linear(x, into, into_bias)
        hidden = self.gru.hidden_size
        shut = torch.zeros_like(gates[0, 0])
        shut[hidden : 2 * hidden] = _SHUT
        gates = torch.addcmul(gates, (~src_mask).unsqueeze(2).to(gates.dtype), shut)
        turned = name.endswith("_reverse")
        first = own.new_zeros(len(x), hidden)
        states, _, _ = recurrence_cuda.recurrence(
            gates.flip(1) if turned else gates, first, own, own_bias, *(None,) * 5
        )
        return states.flip(1) if turned else states, states[:, -1]
