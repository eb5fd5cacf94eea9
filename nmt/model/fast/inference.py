"""The decoder step for search, with as much as possible computed in advance.

`Decoder.step` and `Decoder.read_out` define the results; tests compare them. The differences:

- What a word contributes to gates, readout and query comes from a table over the vocabulary.
- What the source contributes to gates and readout is one product per source token instead of one
  per step and hypothesis: the product is linear, so W c_i = sum_j a_ij (W h_j).
- U s_{i-1}, W_a s_{i-1} and the readout's product with s_i are one product, computed as soon as
  the state is.
- tanh(k + q) = 1 - 2 / (exp(2k) exp(2q) + 1), and the softmax does not depend on the constant 1:
  with both exponentials computed in advance, an energy costs a multiplication and a reciprocal.
- Other tanh(x) are 2 sigmoid(2x) - 1, which PyTorch computes several times faster on CPUs. The
  weights contain the factor 2 of the argument.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.model.attention import AdditiveAttention, exp_2x
from nmt.model.seq2seq import Seq2Seq

_MAX_TABLE = 1 << 26  # elements; larger word tables are not stored
_CHUNK = 1 << 21  # elements of `[batch, beam, src_len, attention]` computed at a time (cache size)

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SourceMemory:
    """What a step reads of the source sentences.

    Attributes:
        keys: exp(2 U_a h_j), `[sentences, src_len, attention]`; None without attention.
        values: contribution of each token to gates and readout, `[sentences, src_len, gate_size +
            embedding]`; without attention `[sentences, 1, ...]`.
        mask: True on real tokens, `[sentences, src_len]`.
    """

    keys: Tensor | None
    values: Tensor
    mask: Tensor

    def select(self, sentences: Tensor, src_len: int) -> SourceMemory:
        """Return the memory of some sentences, cut to `src_len` tokens."""
        return SourceMemory(
            None if self.keys is None else self.keys[sentences, :src_len],
            self.values[sentences, : min(src_len, self.values.shape[1])],
            self.mask[sentences, :src_len],
        )


class Inference:
    """A decoder prepared for search.

    Weights are copied, except those of the encoder: create a new instance when they change.

    Args:
        model: in evaluation mode.
        int8: multiply the large decoder matrices in 8-bit integers, with one scale per output
            row. CPU only; faster, and scores differ slightly from the model's.
    """

    @torch.no_grad()
    def __init__(self, model: Seq2Seq, *, int8: bool = False) -> None:
        decoder, attention = model.decoder, model.decoder.attention
        self.model = model
        self.hidden, self.gate_size = decoder.hidden, decoder.gate_size
        hidden, embedding = decoder.hidden, decoder.embedding.embedding_dim
        self._input_size = self.gate_size + embedding
        self._state_parts = [self.gate_size, attention.query_size, embedding]
        # Factors of pre-activations of gates and readout: 2 before a tanh.
        factors = torch.ones(self._input_size, device=decoder.output_bias.device)
        factors[2 * hidden :] = 2.0
        state_readout, context_readout, word_readout = torch.split(
            decoder.readout.weight, [hidden, decoder.context_gates.in_features, embedding], dim=1
        )
        self._readout_norm = _scaled_norm(decoder.readout_norm, factors[self.gate_size :])
        self._gates_norm = _scaled_norm(decoder.gates_norm, factors[: self.gate_size])
        # Words to gates, readout and query.
        word_sizes = [self.gate_size, decoder.word_query_size]
        word_gates, word_query = torch.split(decoder.word_gates.weight, word_sizes)
        gates_bias, query_bias = torch.split(decoder.word_gates.bias, word_sizes)
        word_factors = torch.cat([factors, factors.new_full((decoder.word_query_size,), 2.0)])
        if decoder.gates_norm is not None:  # the norm applies the factors of the gates
            word_factors[: self.gate_size] = 1.0
        word_weight = torch.cat([word_gates, word_readout, word_query])
        word_bias = torch.cat([gates_bias, decoder.readout.bias, query_bias])
        self.embedding = decoder.embedding.weight.detach().clone()
        self._words = _linear(word_weight * word_factors.unsqueeze(1), word_bias * word_factors)
        self._table: Tensor | None = None
        if len(self.embedding) * len(word_weight) <= _MAX_TABLE:
            self._table = self._project_words(self.embedding)
        # Contexts to gates and readout. Encoder states lie in [-1, 1] unless a bridge or a norm
        # changes them; without int8 this product still runs only once per sentence.
        context_weight = torch.cat([decoder.context_gates.weight, context_readout])
        bounded = model.encoder.bridge is None and model.encoder.norm is None
        self._context = _linear(context_weight * factors.unsqueeze(1), None, int8=int8 and bounded)
        # States to gates, query and readout, whose bias is part of the word's contribution.
        state_factors = torch.cat(
            [
                factors[: self.gate_size],
                factors.new_full((attention.query_size,), 2.0),
                factors[self.gate_size :],
            ]
        )
        state_weight = torch.cat([decoder.recurrent.weight, state_readout])
        state_bias = torch.cat([decoder.recurrent.bias, factors.new_zeros(embedding)])
        self._state = _linear(
            state_weight * state_factors.unsqueeze(1), state_bias * state_factors, int8=int8
        )
        self._output = _linear(self.embedding, decoder.output_bias.detach().clone(), int8=int8)
        self._score: Tensor | None = None
        if isinstance(attention, AdditiveAttention):
            self._score = -2.0 * attention.score.detach()

    def begin(self, src: Tensor, src_mask: Tensor) -> tuple[SourceMemory, Tensor, Tensor]:
        """Encode the source sentences.

        Args:
            src: ids, `[sentences, src_len]`.
            src_mask: True on real tokens, `[sentences, src_len]`.

        Returns:
            the memory for `step`, s_0 `[sentences, hidden]`, and its products, the argument
            `products` of the first step.
        """
        memory, state = self.model.encode(src, src_mask)
        if self._score is None:
            keys, values = None, self._context(memory.keys)
        else:
            keys = exp_2x(memory.keys)
            values = self._context(memory.encoder_states)
        products = self._state(state)[:, : sum(self._state_parts[:2])]
        return SourceMemory(keys, values, src_mask), state, products

    def step(
        self,
        tokens: Tensor,
        state: Tensor,
        products: Tensor,
        source: SourceMemory,
        slots: Tensor,
        beam: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute one step for the open hypotheses, any number of rows per sentence.

        Args:
            tokens: y_{i-1}, `[rows]`.
            state: s_{i-1}, `[rows, hidden]`.
            products: U s_{i-1} and 2 W_a s_{i-1}, `[rows, gate_size + attention]`.
            source: of the sentences.
            slots: sentence * beam + slot in its beam, of each row, `[rows]`.
            beam: slots per sentence.

        Returns:
            s_i; its products; logits of the next token, `[rows, vocab]`; and a_ij,
            `[sentences, beam, src_len]`, undefined in slots without a row.
        """
        hidden_gates, query = torch.split(products, self._state_parts[:2], dim=1)
        words = self._word_contribution(tokens)
        inputs, word_query = words[:, : self._input_size], words[:, self._input_size :]
        if word_query.shape[1]:
            query = query + word_query
        context, attention = self._attend(query, source, slots, beam)
        inputs = inputs + context
        two = 2 * self.hidden
        reset, update = torch.sigmoid(inputs[:, :two] + hidden_gates[:, :two]).chunk(2, dim=1)
        candidate = _tanh_of_half(
            torch.addcmul(inputs[:, two : self.gate_size], reset, hidden_gates[:, two:])
        )
        state = torch.lerp(candidate, state, update)
        products, state_readout = torch.split(
            self._state(state), [sum(self._state_parts[:2]), self._state_parts[2]], dim=1
        )
        features = _tanh_of_half(self._readout_norm(inputs[:, self.gate_size :] + state_readout))
        return state, products, self._output(features), attention

    def _word_contribution(self, tokens: Tensor) -> Tensor:
        if self._table is not None:
            return self._table.index_select(0, tokens)
        return self._project_words(self.embedding[tokens])

    def _project_words(self, embedded: Tensor) -> Tensor:
        """Return the parts of gates, readout and query that depend on the word.

        Args:
            embedded: `[words, embedding]`.

        Returns:
            `[words, gate_size + embedding + word_query_size]`.
        """
        words = self._words(embedded)
        words[:, : self.gate_size] = self._gates_norm(words[:, : self.gate_size])
        return words

    def _attend(
        self, query: Tensor, source: SourceMemory, slots: Tensor, beam: int
    ) -> tuple[Tensor, Tensor]:
        """Return the context's part of gates and readout for each row, and a_ij for each slot."""
        sentences, src_len = source.mask.shape
        if source.keys is None or self._score is None:
            uniform = source.mask / source.mask.sum(dim=1, keepdim=True)
            context = source.values[:, 0].index_select(0, slots // beam)
            return context, uniform.unsqueeze(1).expand(-1, beam, -1)
        # Slots without a row are computed too: cheaper than gathering the keys of the others.
        dense = query.new_zeros(sentences * beam, query.shape[1]).index_copy_(0, slots, query)
        queries = exp_2x(dense, factor=1.0).view(sentences, beam, -1)
        energies = query.new_empty(sentences, beam, src_len)
        ones = query.new_ones(1)
        chunk = max(1, _CHUNK // (beam * src_len * query.shape[1]))
        for start in range(0, sentences, chunk):
            part = slice(start, start + chunk)
            r = torch.addcmul(
                ones, source.keys[part].unsqueeze(1), queries[part].unsqueeze(2)
            ).reciprocal_()  # (1 - tanh(k + q)) / 2, [chunk, beam, src_len, attention]
            energies[part] = r @ self._score
        energies.masked_fill_(~source.mask.unsqueeze(1), -torch.inf)
        attention = torch.softmax(energies, dim=2)
        context = torch.bmm(attention, source.values).flatten(0, 1)
        return context.index_select(0, slots), attention


def _scaled_norm(norm: torch.nn.LayerNorm | None, factors: Tensor) -> Product:
    """Return a layer norm whose output is multiplied by `factors`; the identity for None.

    The input may have any common factor: layer norm is invariant to the scale of its input.
    """
    if norm is None:
        return lambda x: x
    weight, bias, eps = norm.weight.detach() * factors, norm.bias.detach() * factors, norm.eps
    return lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _tanh_of_half(twice_x: Tensor) -> Tensor:
    """Return tanh(x) from 2x, in place."""
    return twice_x.sigmoid_().mul_(2.0).sub_(1.0)


def _int8_saturates() -> bool:
    """Whether oneDNN adds pairs of 8-bit products in 16 bits: x86 without VNNI."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and not getattr(torch.cpu, "_is_vnni_supported", bool)()


def _linear(weight: Tensor, bias: Tensor | None, *, int8: bool = False) -> Product:
    """Return a function that computes x W^T + b, in float32 or int8.

    With int8, x must lie in [-1, 1], as GRU states and tanh do: its scale is then a constant, and
    the result of a row does not depend on other rows. On processors without 8-bit dot products
    weights have 7 bits, because sums of two products saturate.
    """
    weight = weight.detach().contiguous()
    if not int8:
        return lambda x: torch.nn.functional.linear(x, weight, bias)
    scales = weight.abs().amax(dim=1).clamp_(min=1e-12) / (63 if _int8_saturates() else 127)
    rounded = torch.round(weight / scales.unsqueeze(1)).to(torch.int8).t()
    scales /= 127

    def multiply(x: Tensor) -> Tensor:
        flat = (x.flatten(0, -2) * 127).round_().to(torch.int8)
        product = torch._int_mm(flat, rounded).float()
        if bias is None:
            product *= scales
        else:
            torch.addcmul(bias, product, scales, out=product)
        return product.view(*x.shape[:-1], len(scales))

    return multiply
