"""The whole network: source ids and target ids in, what predicts the next token out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nmt.model.attention import AdditiveAttention, FixedContext
from nmt.model.decoder import Decoder, Memory
from nmt.model.encoder import Encoder
from nmt.model.fast.recurrence import unroll


class Seq2Seq(nn.Module):
    """Encoder, attention and decoder.

    Args:
        src_vocab: source pieces.
        trg_vocab: target pieces.
        attention: ``additive``, or ``none`` for one fixed context vector, which has neither a
            query nor a bridge.
        embedding_dim: size of token vectors on both sides.
        encoder_hidden: encoder GRU units in each direction.
        encoder_layers: stacked encoder layers.
        decoder_hidden: decoder GRU units.
        attention_hidden: units of the additive score.
        dropout: on embeddings, encoder states and readout.
        word_dropout: share of whole tokens dropped on both sides.
        attention_query: ``state``, s_{i-1}, or ``state+word``, and y_{i-1} with it.
        source_bridge: what the attention reads of a source token holds its own vector too.
        layer_norm: of what the attention reads, of what words give to the decoder's gates, and
            in the readout.
        initialise: draw weights to train from; a network whose weights are loaded goes
            without, since orthogonal ones take long (0.4 s at decoder 1024).
    """

    def __init__(
        self,
        *,
        src_vocab: int,
        trg_vocab: int,
        attention: Literal["additive", "none"],
        embedding_dim: int,
        encoder_hidden: int,
        encoder_layers: int,
        decoder_hidden: int,
        attention_hidden: int,
        dropout: float,
        word_dropout: float,
        attention_query: Literal["state", "state+word"] = "state",
        source_bridge: bool = False,
        layer_norm: bool = False,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        states = 2 * encoder_hidden
        attends = attention == "additive"
        looks = AdditiveAttention(states, attention_hidden) if attends else FixedContext()
        self.encoder = Encoder(
            src_vocab, embedding_dim, encoder_hidden, encoder_layers, dropout, word_dropout,
            attends and source_bridge, attends and layer_norm,
        )  # fmt: skip
        self.decoder = Decoder(
            trg_vocab, embedding_dim, states, decoder_hidden, looks, dropout, word_dropout,
            attends and attention_query == "state+word", layer_norm,
        )  # fmt: skip
        if initialise:
            self._initialise()

    def _initialise(self) -> None:
        """Uniform by fan (Glorot & Bengio 2010), recurrent blocks orthogonal, biases zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.ones_(parameter)
            elif parameter.dim() < 2:
                nn.init.zeros_(parameter)
            elif "embedding" in name:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                nn.init.xavier_uniform_(parameter)
        for embedding in (self.encoder.embedding, self.decoder.embedding):
            with torch.no_grad():
                embedding.weight[embedding.padding_idx].zero_()
        recurrent = [
            parameter for name, parameter in self.encoder.gru.named_parameters() if "_hh_" in name
        ]
        for weight in [*(p for p in recurrent if p.dim() == 2), self._decoder_gates()]:
            for block in weight.data.chunk(3):
                nn.init.orthogonal_(block)
        if isinstance(self.decoder.attention, AdditiveAttention):
            nn.init.normal_(
                self.decoder.attention.score, std=self.decoder.attention.query_size**-0.5
            )

    def _decoder_gates(self) -> Tensor:
        return self.decoder.recurrent.weight[: 3 * self.decoder.hidden]

    def encode(self, src: Tensor, src_mask: Tensor) -> tuple[Memory, Tensor]:
        """Read the source: the decoder's memory, and its first state `[batch, hidden]`."""
        encoder_states, summary = self.encoder(src, src_mask)
        memory = self.decoder.begin(encoder_states, summary, src_mask)
        return memory, self.decoder.first_state(summary)

    def forward(self, src: Tensor, src_mask: Tensor, trg_in: Tensor) -> tuple[Tensor, Tensor]:
        """Teacher forcing: features that predict each next token.

        Args:
            src: `[batch, src_len]`.
            src_mask: True on real tokens, `[batch, src_len]`.
            trg_in: BOS and the target tokens, `[batch, trg_len]`.

        Returns:
            features for `decoder.logits`, `[batch, trg_len, embedding]`, and attention
            a_ij, `[batch, trg_len, src_len]`.
        """
        memory, state = self.encode(src, src_mask)
        embedded = self.decoder.embed(trg_in)
        gates = self.decoder.from_words(embedded)
        states, contexts, attention = unroll(self.decoder, gates, state, memory)
        return self.decoder.read_out(states, contexts, embedded), attention
