"""The whole network: source and target ids to output features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nmt.config.schema import ModelConfig
from nmt.model.attention import AdditiveAttention
from nmt.model.decoder import Decoder, Memory
from nmt.model.encoder import Encoder
from nmt.model.fast.recurrence import unroll


class Seq2Seq(nn.Module):
    """Encoder, attention and decoder.

    Args:
        src_vocab: number of source pieces.
        trg_vocab: number of target pieces.
        config: sizes and options; `dropout` must be a number.
        initialise: draw initial weights. False saves time where weights are loaded afterwards:
            orthogonal matrices take 0.4 s at `decoder_hidden: 1024`.
    """

    def __init__(
        self, src_vocab: int, trg_vocab: int, config: ModelConfig, *, initialise: bool = True
    ) -> None:
        super().__init__()
        if config.dropout == "auto":
            raise ValueError("model.dropout: auto has not been resolved")
        self.encoder = Encoder(src_vocab, config, config.dropout)
        self.decoder = Decoder(trg_vocab, config, config.dropout)
        if initialise:
            self._initialise()

    def _initialise(self) -> None:
        """Draw weights: Glorot & Bengio (2010), recurrent blocks orthogonal, biases zero."""
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
        recurrent_weights: list[Tensor] = [
            parameter
            for name, parameter in self.encoder.gru.named_parameters()
            if name.startswith("weight_hh")
        ]
        recurrent_weights.append(self.decoder.recurrent.weight[: self.decoder.gate_size])
        for weight in recurrent_weights:
            for gate in weight.data.chunk(3):
                nn.init.orthogonal_(gate)
        if isinstance(self.decoder.attention, AdditiveAttention):
            nn.init.normal_(
                self.decoder.attention.score, std=self.decoder.attention.query_size**-0.5
            )

    def encode(self, src: Tensor, src_mask: Tensor) -> tuple[Memory, Tensor]:
        """Encode the source: the decoder's memory, and s_0 `[batch, hidden]`."""
        encoder_states, summary = self.encoder(src, src_mask)
        memory = self.decoder.memory(encoder_states, summary, src_mask)
        return memory, self.decoder.initial_state(summary)

    def forward(self, src: Tensor, src_mask: Tensor, trg_in: Tensor) -> tuple[Tensor, Tensor]:
        """Run with teacher forcing.

        Args:
            src: ids, `[batch, src_len]`.
            src_mask: True on real tokens, `[batch, src_len]`.
            trg_in: BOS and the target tokens, `[batch, trg_len]`.

        Returns:
            features for `decoder.logits`, `[batch, trg_len, embedding]`.
            attention a_ij, `[batch, trg_len, src_len]`.
        """
        memory, state = self.encode(src, src_mask)
        embedded = self.decoder.embed(trg_in)
        input_gates = self.decoder.input_gates(embedded)
        states, contexts, attention = unroll(self.decoder, input_gates, state, memory)
        return self.decoder.read_out(states, contexts, embedded), attention
