"""The network: padding, attention, gradients, and the loop against the single step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nmt.config.schema import ModelConfig
from nmt.model import Seq2Seq
from nmt.model.encoder import Encoder
from nmt.model.fast.recurrence import unroll
from nmt.symbols import PAD
from nmt.train.loss import batch_loss
from tests.helpers.networks import KINDS, SOURCES, TARGETS, Kind, batch_of, network


def test_options_of_the_attention_change_nothing_without_attention() -> None:
    plain = network("none", layer_norm=True)
    with_options = network(
        "none", layer_norm=True, attention_query="state+word", source_bridge=True
    )
    shapes = [
        {name: p.shape for name, p in model.state_dict().items()} for model in (plain, with_options)
    ]
    assert shapes[0] == shapes[1]


def test_an_unresolved_dropout_is_an_error() -> None:
    with pytest.raises(ValueError, match="dropout"):
        Seq2Seq(23, 19, ModelConfig(dropout="auto"))


@pytest.mark.parametrize("attention", KINDS)
def test_a_pair_alone_equals_the_pair_in_a_padded_batch(attention: Kind) -> None:
    model = network(attention).eval()
    together = batch_of(SOURCES, TARGETS)
    features, attentions = model(together.src, together.src_mask, together.trg_in)
    for row, (source, target) in enumerate(zip(SOURCES, TARGETS, strict=True)):
        alone = batch_of([source], [target])
        alone_features, alone_attention = model(alone.src, alone.src_mask, alone.trg_in)
        steps = len(target) + 1
        torch.testing.assert_close(features[row, :steps], alone_features[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            attentions[row, :steps, : len(source)], alone_attention[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("attention", KINDS)
def test_the_loss_of_a_batch_is_the_sum_of_its_pairs(attention: Kind) -> None:
    model = network(attention).eval()
    whole = batch_loss(model, batch_of(SOURCES, TARGETS), 0.1)
    parts = [
        batch_loss(model, batch_of([s], [t]), 0.1) for s, t in zip(SOURCES, TARGETS, strict=True)
    ]
    assert whole.tokens == sum(part.tokens for part in parts)
    assert whole.smoothed.item() == pytest.approx(sum(p.smoothed.item() for p in parts), rel=1e-5)
    assert float(whole.plain) == pytest.approx(sum(float(p.plain) for p in parts), rel=1e-5)


def test_attention_is_zero_on_padding_and_sums_to_one() -> None:
    model = network().eval()
    batch = batch_of(SOURCES, TARGETS)
    _, attention = model(batch.src, batch.src_mask, batch.trg_in)
    padding = ~batch.src_mask.unsqueeze(1).expand_as(attention)
    assert (attention[padding] == 0).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(attention.shape[:2]))


def test_attention_follows_the_equations_of_the_paper() -> None:
    """e_ij = v·tanh(W s + U h), a = softmax(e), c = sum a h."""
    model = network().eval()
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
    gates = decoder.input_gates(decoder.embed(batch.trg_in[:, :1]))
    _, context, attention = decoder.step(gates, state.unsqueeze(1), memory)
    torch.testing.assert_close(attention[0, 0], expected)
    torch.testing.assert_close(context[0, 0], expected @ memory.encoder_states[0])


@pytest.mark.parametrize("attention", KINDS)
def test_the_loop_equals_repeated_steps(attention: Kind) -> None:
    model = network(attention).eval()
    decoder = model.decoder
    batch = batch_of(SOURCES, TARGETS)
    memory, first = model.encode(batch.src, batch.src_mask)
    gates = decoder.input_gates(decoder.embed(batch.trg_in))
    states, contexts, attentions = unroll(decoder, gates, first, memory)
    state = first.unsqueeze(1)
    for step in range(batch.trg_in.shape[1]):
        state, context, step_attention = decoder.step(gates[:, step : step + 1], state, memory)
        torch.testing.assert_close(states[:, step], state[:, 0])
        torch.testing.assert_close(contexts[:, step], context[:, 0])
        torch.testing.assert_close(attentions[:, step], step_attention[:, 0])


def test_a_step_of_several_hypotheses_equals_single_steps() -> None:
    model = network().eval()
    decoder = model.decoder
    batch = batch_of(SOURCES, TARGETS)
    memory, first = model.encode(batch.src, batch.src_mask)
    states = first.unsqueeze(1) * torch.tensor([1.0, 0.5, -1.0])[:, None]  # three hypotheses
    tokens = torch.tensor([[4, 5, 6]]).expand(3, 3)
    gates = decoder.input_gates(decoder.embed(tokens))
    together = decoder.step(gates, states, memory)
    for beam in range(3):
        alone = decoder.step(gates[:, beam : beam + 1], states[:, beam : beam + 1], memory)
        for expected, results in zip(alone, together, strict=True):
            torch.testing.assert_close(results[:, beam : beam + 1], expected)


@pytest.mark.parametrize("attention", KINDS)
def test_the_initial_loss_is_near_that_of_a_uniform_distribution(attention: Kind) -> None:
    loss = batch_loss(network(attention), batch_of(SOURCES, TARGETS), 0.0)
    # Layer norm before the readout's tanh makes the initial logits larger.
    tolerance = 0.2 if attention == "state+word" else 0.1
    assert float(loss.plain) / loss.tokens == pytest.approx(math.log(19), rel=tolerance)


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    model = network().eval()
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
        model = network(attention)
        torch.autograd.backward(batch_loss(model, batch_of(SOURCES, TARGETS), 0.1).smoothed)
        without = [name for name, p in model.named_parameters() if p.grad is None]
        assert without == []


def test_word_dropout_zeroes_whole_vectors_in_training_only() -> None:
    model = network(word_dropout=0.5)
    words = torch.ones(4, 50, 8)
    dropped = model.encoder.word_dropout(words)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert ((dropped == 0).all(dim=2) | (dropped == 2).all(dim=2)).all()
    model.eval()
    assert torch.equal(model.encoder.word_dropout(words), words)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_encoder_on_the_recurrence_equals_packed_sequences(
    layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs run `_run_recurrence`, CPUs `_run_packed`."""
    torch.manual_seed(2)
    config = ModelConfig(
        embedding_dim=8, encoder_hidden=7, encoder_layers=layers, word_dropout=0.0,
        source_bridge=True, layer_norm=False,
    )  # fmt: skip
    encoder = Encoder(30, config, dropout=0.0).double()
    src = torch.randint(4, 30, (5, 6))
    mask = torch.arange(6) < torch.tensor([3, 6, 1, 5, 6]).unsqueeze(1)
    src[~mask] = PAD

    def outputs_and_gradients() -> list[Tensor]:
        encoder.zero_grad()
        outputs = encoder(src, mask)
        torch.manual_seed(3)
        torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
        return [*outputs, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)]

    expected = outputs_and_gradients()
    monkeypatch.setattr(Encoder, "_run_packed", Encoder._run_recurrence)
    results = outputs_and_gradients()
    assert len(results) == len(expected) == 2 + 2 + 8 * layers
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
