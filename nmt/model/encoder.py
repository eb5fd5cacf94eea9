"""The encoder: one state h_j for each source token, read from both sides (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nmt.model.regularise import WordDropout
from nmt.symbols import PAD


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
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=PAD)
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(
            embedding,
            hidden,
            layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.bridge = nn.Linear(embedding, 2 * hidden, bias=False) if bridge else None

    def forward(
        self, src: Tensor, src_mask: Tensor, src_lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode a batch.

        Args:
            src: ids, PAD behind each sentence, `[batch, src_len]`.
            src_mask: True where a real token is, `[batch, src_len]`; every sentence
                has at least one.
            src_lengths: real tokens of each sentence, `[batch]`, on the CPU. Without them
                the program waits for the GPU to count; with them it does so only to sort,
                unless the longest comes first.

        Returns:
            encoder_states: h_j = [forward state; backward state], with what the bridge adds, zero
                on padding, `[batch, src_len, 2*hidden]`.
            summary: the forward state at the last token and the backward state at the
                first, each of which has read the whole sentence, `[batch, 2*hidden]`.
        """
        embedded = self.dropout(self.word_dropout(self.embedding(src)))
        # Packing makes the backward GRU start at each sentence's own last token, so
        # that a padded neighbour changes nothing.
        lengths = src_mask.sum(dim=1).cpu() if src_lengths is None else src_lengths
        is_sorted = bool((lengths[:-1] >= lengths[1:]).all())
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=is_sorted)
        states, last = self.gru(packed)
        encoder_states, _ = pad_packed_sequence(states, batch_first=True, total_length=src.shape[1])
        summary = torch.cat([last[-2], last[-1]], dim=1)
        if self.bridge is not None:
            encoder_states = encoder_states + self.bridge(embedded) * src_mask.unsqueeze(2)
        return self.dropout(encoder_states), summary
