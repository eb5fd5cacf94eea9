"""The network: padding changes nothing, attention is a distribution, the loop is the step."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.model.encoder import Encoder
from nmt.model.fast import recurrence_cuda
from nmt.model.fast.recurrence import unroll
from nmt.symbols import BOS, EOS, PAD
from nmt.train.loss import batch_loss

# asks: additive, with the last word in the query and the source words in what it finds.
Kind = Literal["additive", "none", "asks"]
KINDS = ("additive", "none", "asks")


def build(attention: Kind = "additive", seed: int = 0, dropout: float = 0.0) -> Seq2Seq:
    torch.manual_seed(seed)
    return Seq2Seq(
        src_vocab=23, trg_vocab=19, attention="none" if attention == "none" else "additive",
        embedding_dim=8, encoder_hidden=7, encoder_layers=1, decoder_hidden=9, attention_hidden=6,
        dropout=dropout,
        word_dropout=dropout, source_bridge=attention == "asks", layer_norm=attention == "asks",
        attention_query="state+word" if attention == "asks" else "state",
    )  # fmt: skip


def test_without_attention_nothing_is_left_that_only_attention_uses() -> None:
    sizes = {
        "embedding_dim": 8,
        "encoder_hidden": 7,
        "encoder_layers": 1,
        "decoder_hidden": 9,
        "attention_hidden": 6,
    }
    extras = {"attention_query": "state+word", "source_bridge": True, "layer_norm": True}
    plain, asked = (
        Seq2Seq(
            src_vocab=23, trg_vocab=19, attention="none", dropout=0.0, word_dropout=0.0,
            **sizes, **given,
        )
        for given in ({"layer_norm": True}, extras)
    )  # fmt: skip
    shapes = [{name: p.shape for name, p in m.state_dict().items()} for m in (plain, asked)]
    assert shapes[0] == shapes[1]


def batch_of(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    def pad(rows: list[list[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    src = pad(sources)
    return Batch(
        src, src != PAD,
        pad([[BOS, *t] for t in targets]), pad([[*t, EOS] for t in targets]),
        sum(len(t) + 1 for t in targets),
    )  # fmt: skip


SOURCES = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15]]
TARGETS = [[4, 5], [6, 7, 8, 9], [10]]


@pytest.mark.parametrize("attention", KINDS)
def test_a_pair_alone_equals_the_pair_in_a_padded_batch(attention: Kind) -> None:
    model = build(attention).eval()
    together = batch_of(SOURCES, TARGETS)
    features, looked = model(together.src, together.src_mask, together.trg_in)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = batch_of([source], [target])
        own, own_looked = model(alone.src, alone.src_mask, alone.trg_in)
        steps = len(target) + 1
        torch.testing.assert_close(features[row, :steps], own[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            looked[row, :steps, : len(source)], own_looked[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("attention", KINDS)
def test_the_loss_of_a_batch_is_the_sum_of_its_pairs(attention: Kind) -> None:
    model = build(attention).eval()
    whole = batch_loss(model, batch_of(SOURCES, TARGETS), 0.1)
    parts = [
        batch_loss(model, batch_of([s], [t]), 0.1) for s, t in zip(SOURCES, TARGETS, strict=True)
    ]
    assert whole.tokens == sum(part.tokens for part in parts)
    assert whole.smoothed.item() == pytest.approx(sum(p.smoothed.item() for p in parts), rel=1e-5)
    assert float(whole.plain) == pytest.approx(sum(float(p.plain) for p in parts), rel=1e-5)


def test_attention_is_zero_on_padding_and_sums_to_one() -> None:
    model = build().eval()
    batch = batch_of(SOURCES, TARGETS)
    _, attention = model(batch.src, batch.src_mask, batch.trg_in)
    padding = ~batch.src_mask.unsqueeze(1).expand_as(attention)
    assert (attention[padding] == 0).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(attention.shape[:2]))


def test_attention_follows_the_equations_of_the_paper() -> None:
    """e_ij = v·tanh(W s + U h), a = softmax(e), c = sum a h, in plain loops."""
    model = build().eval()
    decoder = model.decoder
    batch = batch_of([SOURCES[0]], [TARGETS[0]])
    memory, state = model.encode(batch.src, batch.src_mask)
    query_weights = decoder.recurrent.weight[3 * decoder.hidden :]
    query_bias = decoder.recurrent.bias[3 * decoder.hidden :]
    energies = []
    for h in memory.encoder_states[0]:
        key = decoder.attention.project(h)  # type: ignore[union-attr, operator]
        energies.append(
            decoder.attention.score @ torch.tanh(query_weights @ state[0] + query_bias + key)  # type: ignore[union-attr, operator]
        )
    expected = torch.softmax(torch.stack(energies), dim=0)
    gates = decoder.from_words(decoder.embed(batch.trg_in[:, :1]))
    _, context, attention = decoder.step(gates, state.unsqueeze(1), memory)
    torch.testing.assert_close(attention[0, 0], expected)
    torch.testing.assert_close(context[0, 0], expected @ memory.encoder_states[0])


@pytest.mark.parametrize("attention", KINDS)
def test_the_loop_is_the_step_again_and_again(attention: Kind) -> None:
    model = build(attention).eval()
    decoder = model.decoder
    batch = batch_of(SOURCES, TARGETS)
    memory, first = model.encode(batch.src, batch.src_mask)
    gates = decoder.from_words(decoder.embed(batch.trg_in))
    states, contexts, looked = unroll(decoder, gates, first, memory)
    state = first.unsqueeze(1)
    for step in range(batch.trg_in.shape[1]):
        state, context, attended = decoder.step(gates[:, step : step + 1], state, memory)
        torch.testing.assert_close(states[:, step], state[:, 0])
        torch.testing.assert_close(contexts[:, step], context[:, 0])
        torch.testing.assert_close(looked[:, step], attended[:, 0])


def test_the_step_serves_several_hypotheses_at_once() -> None:
    model = build().eval()
    decoder = model.decoder
    batch = batch_of(SOURCES, TARGETS)
    memory, first = model.encode(batch.src, batch.src_mask)
    states = first.unsqueeze(1) * torch.tensor([1.0, 0.5, -1.0])[:, None]  # three in each beam
    tokens = torch.tensor([[4, 5, 6]]).expand(3, 3)
    gates = decoder.from_words(decoder.embed(tokens))
    together = decoder.step(gates, states, memory)
    for beam in range(3):
        alone = decoder.step(gates[:, beam : beam + 1], states[:, beam : beam + 1], memory)
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(all_[:, beam : beam + 1], one)


@pytest.mark.parametrize("attention", KINDS)
def test_the_first_loss_is_that_of_guessing(attention: Kind) -> None:
    loss = batch_loss(build(attention), batch_of(SOURCES, TARGETS), 0.0)
    # With a norm before the readout's tanh, guesses are bolder from the start.
    apart = 0.2 if attention == "asks" else 0.1
    assert float(loss.plain) / loss.tokens == pytest.approx(math.log(19), rel=apart)


def test_label_smoothing_mixes_in_the_even_distribution() -> None:
    model = build().eval()
    batch = batch_of(SOURCES, TARGETS)
    plain = batch_loss(model, batch, 0.0)
    assert plain.smoothed.item() == float(plain.plain)
    features, _ = model(batch.src, batch.src_mask, batch.trg_in)
    log_probs = torch.log_softmax(model.decoder.logits(features), dim=2)
    target = torch.full_like(log_probs, 0.1 / 19)
    target.scatter_add_(2, batch.trg_out.unsqueeze(2), torch.full_like(target[..., :1], 0.9))
    real = batch.trg_out != PAD
    expected = -(target * log_probs).sum(dim=2)[real].sum()
    assert batch_loss(model, batch, 0.1).smoothed.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_reach_every_weight() -> None:
    for attention in KINDS:
        model = build(attention)
        torch.autograd.backward(batch_loss(model, batch_of(SOURCES, TARGETS), 0.1).smoothed)
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert without == []


def test_word_dropout_takes_whole_words_in_training_only() -> None:
    model = build(dropout=0.5)
    words = torch.ones(4, 50, 8)
    dropped = model.encoder.word_dropout(words)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert ((dropped == 0).all(dim=2) | (dropped == 2).all(dim=2)).all()
    model.eval()
    assert torch.equal(model.encoder.word_dropout(words), words)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_encoder_of_a_gpu_equals_pytorchs_own(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    encoder = Encoder(30, 8, 7, layers, 0.0, 0.0, bridge=True).double()
    src = torch.randint(4, 30, (5, 6))
    mask = torch.arange(6) < torch.tensor([3, 6, 1, 5, 6]).unsqueeze(1)
    src[~mask] = PAD

    def outcome() -> list[Tensor]:
        encoder.zero_grad()
        outputs = encoder(src, mask)
        torch.manual_seed(3)
        torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
        return [*outputs, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]

    expected = outcome()
    monkeypatch.setattr(recurrence_cuda, "is_for", lambda tensor: tensor is not None)
    found = outcome()
    assert len(found) == len(expected) == 2 + 2 + 8 * layers
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
