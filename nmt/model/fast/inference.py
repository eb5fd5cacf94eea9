"""The decoder's step as the search runs it: the same numbers, most of them made beforehand.

`Decoder.step` and `Decoder.read_out` say what is computed; a test pins this file to them.
What is different is when and in which products:

- What a word gives to the gates and to the readout is looked up in a table, made once.
- What the source gives to them is multiplied once a source token instead of once a step
  and hypothesis: the context's product is linear, so W c_i = sum_j a_ij (W h_j).
- The gates' U s_{i-1}, the attention's W_a s_{i-1} and the readout's share of s_i are one
  product with the state, taken when the state is made.
- tanh(k + q) = 1 - 2 / (exp(2k) exp(2q) + 1), and softmax does not see what all energies
  have in common: with both exponentials made beforehand an energy costs a multiplication,
  a division and a sum instead of a tanh.
- Other tanh are 2 sigmoid(2x) - 1, which PyTorch computes several times faster on CPUs;
  the factor inside is in the weights.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nmt.model.attention import AdditiveAttention, exp_twice
from nmt.model.seq2seq import Seq2Seq

_LARGEST_TABLE = 1 << 26  # numbers; words are multiplied at each step if it would be larger
_CHUNK = 1 << 21  # numbers of the attention's inner tensor at a time: what caches hold

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """What the step reads of its source sentences.

    Attributes:
        keys: exp(2 U_a h_j), `[sentences, src_len, attention]`; None without attention.
        values: what each token gives to gates and readout, `[sentences, src_len, 3*hidden +
            embedding]`; one for the whole sentence without attention.
        mask: True on real tokens, `[sentences, src_len]`.
    """

    keys: Tensor | None
    values: Tensor
    mask: Tensor

    def select(self, sentences: Tensor, src_len: int) -> Source:
        """Keep some sentences, cut to the longest of them."""
        return Source(
            None if self.keys is None else self.keys[sentences, :src_len],
            self.values[sentences, : min(src_len, self.values.shape[1])],
            self.mask[sentences, :src_len],
        )


class Inference:
    """A network made ready for search, from its weights as they are now.

    When they change it has to be made again: only the encoder is not copied.

    Args:
        model: in evaluation mode.
        int8: multiply the decoder's large matrices in 8-bit integers, with a scale for each
            row of the weights; CPU only. Several times as fast there, and the scores are no
            longer quite those of the model.
    """

    @torch.no_grad()
    def __init__(self, model: Seq2Seq, *, int8: bool = False) -> None:
        decoder = model.decoder
        self.model = model
        self.hidden, embedding = decoder.hidden, decoder.embedding.embedding_dim
        hidden, looks = self.hidden, decoder.attention
        self.gates = 3 * hidden
        # Twice what goes into a tanh: the candidate's third of the gates, the readout.
        asked = decoder.word_gates.out_features - self.gates  # the word's part of the query
        twice = torch.ones(self.gates + embedding, device=decoder.output_bias.device)
        twice[2 * hidden :] = 2.0
        of_state, of_context, of_word = torch.split(
            decoder.readout.weight, [hidden, decoder.context_gates.in_features, embedding], dim=1
        )
        self._readout_norm = _Norm(decoder.readout_norm, twice[self.gates :])
        self._gates_norm = _Norm(decoder.gates_norm, twice[: self.gates])
        of_word_twice = torch.cat([twice, twice.new_full((asked,), 2.0)])
        if self._gates_norm.there:  # which has the factors
            of_word_twice[: self.gates] = 1.0
        to_gates, to_query = torch.split(decoder.word_gates.weight, [self.gates, asked])
        gates_bias, query_bias = torch.split(decoder.word_gates.bias, [self.gates, asked])
        words = torch.cat([to_gates, of_word, to_query]) * of_word_twice.unsqueeze(1)
        bias = torch.cat([gates_bias, decoder.readout.bias, query_bias]) * of_word_twice
        self.embedding = decoder.embedding.weight.detach().clone()
        self._words = _linear(words, bias)
        self._table: Tensor | None = None
        if len(self.embedding) * len(words) <= _LARGEST_TABLE:
            self._table = self._made_of(self.embedding)
        context = torch.cat([decoder.context_gates.weight, of_context]) * twice.unsqueeze(1)
        # States lie in -1 to 1, but not with a bridge or a norm; it is one product a sentence.
        bounded = model.encoder.bridge is None and model.encoder.norm is None
        self._context = _linear(context, None, int8=int8 and bounded)
        recurrent, recurrent_bias = decoder.recurrent.weight, decoder.recurrent.bias
        own = twice[: self.gates]
        query = torch.full((looks.query_size,), 2.0, device=own.device)
        scale = torch.cat([own, query, torch.full((embedding,), 2.0, device=own.device)])
        state = torch.cat([recurrent, of_state]) * scale.unsqueeze(1)
        nothing = torch.zeros(embedding, device=own.device)  # the readout's bias is the word's
        self._state = _linear(state, torch.cat([recurrent_bias, nothing]) * scale, int8=int8)
        self._output = _linear(self.embedding, decoder.output_bias.detach().clone(), int8=int8)
        self._given = self.gates + embedding
        self._parts = [self.gates, looks.query_size, embedding]
        self._score: Tensor | None = None
        if isinstance(looks, AdditiveAttention):
            self._score = -2.0 * looks.score.detach()

    def begin(self, src: Tensor, src_mask: Tensor) -> tuple[Source, Tensor, Tensor]:
        """Read the source sentences.

        Args:
            src: ids, `[sentences, src_len]`.
            src_mask: True on real tokens, `[sentences, src_len]`.

        Returns:
            what the steps read of it, s_0 `[sentences, hidden]`, and its products for the
            first step, as `step` takes them.
        """
        memory, state = self.model.encode(src, src_mask)
        if self._score is None:
            keys, values = None, self._context(memory.keys)
        else:
            keys = exp_twice(memory.keys)
            values = self._context(memory.encoder_states)
        own, query, _ = torch.split(self._state(state), self._parts, dim=1)
        return Source(keys, values, src_mask), state, torch.cat([own, query], dim=1)

    def step(
        self,
        tokens: Tensor,
        state: Tensor,
        products: Tensor,
        source: Source,
        place: Tensor,
        beam: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step for the open hypotheses: rows in any number for each sentence.

        Args:
            tokens: y_{i-1}, `[rows]`.
            state: s_{i-1}, `[rows, hidden]`.
            products: U s_{i-1} and 2 W_a s_{i-1}, `[rows, 3*hidden + attention]`.
            source: of the sentences.
            place: of each row in the beams of all sentences end to end: sentence * beam +
                place in its beam, `[rows]`.
            beam: places a sentence has.

        Returns:
            s_i; its products; logits of the next token, `[rows, vocab]`; and a_ij,
            `[sentences, beam, src_len]`, meaningless at places without a row.
        """
        own, query = torch.split(products, self._parts[:2], dim=1)
        words = self._of_words(tokens)
        given, asked = words[:, : self._given], words[:, self._given :]
        if asked.shape[1]:
            query = query + asked
        context, attention = self._look(query, source, place, beam)
        given = given + context
        hidden = self.hidden
        opened = torch.sigmoid(given[:, : 2 * hidden] + own[:, : 2 * hidden])
        reset, update = opened.chunk(2, dim=1)
        candidate = _tanh_of_half(
            torch.addcmul(given[:, 2 * hidden : self.gates], reset, own[:, 2 * hidden :])
        )
        state = torch.lerp(candidate, state, update)
        made = self._state(state)
        products, of_state = torch.split(made, [sum(self._parts[:2]), self._parts[2]], dim=1)
        features = _tanh_of_half(self._readout_norm(given[:, self.gates :] + of_state))
        return state, products, self._output(features), attention

    def _of_words(self, tokens: Tensor) -> Tensor:
        if self._table is not None:
            return self._table.index_select(0, tokens)
        return self._made_of(self.embedding[tokens])

    def _made_of(self, embedded: Tensor) -> Tensor:
        """What words give to gates, readout and query: `[words, 3*hidden + embedding (+ query)]`.

        Their vectors are `embedded`, `[words, embedding]`.
        """
        words = self._words(embedded)
        words[:, : self.gates] = self._gates_norm(words[:, : self.gates])
        return words

    def _look(
        self, query: Tensor, source: Source, place: Tensor, beam: int
    ) -> tuple[Tensor, Tensor]:
        """What the context gives to each row, and the attention of each place."""
        sentences, src_len = source.mask.shape
        if source.keys is None or self._score is None:
            even = source.mask / source.mask.sum(dim=1, keepdim=True)
            context = source.values[:, 0].index_select(0, place // beam)
            return context, even.unsqueeze(1).expand(-1, beam, -1)
        # Places without a row are computed too: dense, it is cheaper than gathering keys.
        placed = query.new_zeros(sentences * beam, query.shape[1]).index_copy_(0, place, query)
        queries = exp_twice(placed, factor=1.0).view(sentences, beam, -1)
        energies = query.new_empty(sentences, beam, src_len)
        one = query.new_ones(1)
        chunk = max(1, _CHUNK // (beam * src_len * query.shape[1]))
        for start in range(0, sentences, chunk):
            part = slice(start, start + chunk)
            mixed = torch.addcmul(
                one, source.keys[part].unsqueeze(1), queries[part].unsqueeze(2)
            ).reciprocal_()  # [some, beam, src_len, attention]
            energies[part] = mixed @ self._score
        energies.masked_fill_(~source.mask.unsqueeze(1), -torch.inf)
        attention = torch.softmax(energies, dim=2)
        context = torch.bmm(attention, source.values).flatten(0, 1)
        return context.index_select(0, place), attention


class _Norm:
    """A layer norm with further factors of what it makes; nothing where there is none.

    It does not see a factor that all it is given have in common.
    """

    def __init__(self, norm: torch.nn.LayerNorm | None, factors: Tensor) -> None:
        self.there = norm is not None
        if norm is not None:
            self.weight, self.bias = norm.weight.detach() * factors, norm.bias.detach() * factors
            self.eps = norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        if not self.there:
            return x
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


def _tanh_of_half(twice: Tensor) -> Tensor:
    """tanh(x) of 2x, in place."""
    return twice.sigmoid_().mul_(2.0).sub_(1.0)


def _saturates() -> bool:
    """Whether oneDNN adds two products of 8 bits in 16: x86 without VNNI."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and not getattr(torch.cpu, "_is_vnni_supported", bool)()


def _linear(weight: Tensor, bias: Tensor | None, *, int8: bool = False) -> Product:
    """X W^T + b, in float32 or with W and x rounded to 8 bits.

    What is rounded must lie in -1 to 1, as GRU states and tanh do. Its scale is therefore
    known: what is computed for one row does not depend on others, and none has to be looked
    through for its largest number. Where a processor has no instructions for such products
    their sums saturate in pairs, and weights have 7 bits.
    """
    weight = weight.detach().contiguous()
    if not int8:
        return lambda x: torch.nn.functional.linear(x, weight, bias)
    scales = weight.abs().amax(dim=1).clamp_(min=1e-12) / (63 if _saturates() else 127)
    rounded = torch.round(weight / scales.unsqueeze(1)).to(torch.int8).t()
    scales /= 127

    def multiply(x: Tensor) -> Tensor:
        flat = (x.flatten(0, -2) * 127).round_().to(torch.int8)
        made = torch._int_mm(flat, rounded).float()
        if bias is None:
            made *= scales
        else:
            torch.addcmul(bias, made, scales, out=made)
        return made.view(*x.shape[:-1], len(scales))

    return multiply
