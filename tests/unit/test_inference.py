"""The step made ready for search against the network's own step."""

from __future__ import annotations

import pytest
import torch

import nmt.model.fast.inference
from nmt.data.batches import pad_sources
from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.symbols import BOS

SOURCES = [[4, 5, 6, 7, 8, 9], [5, 5, 4], [9], [8, 6, 7, 4]]


def random_model(kind: str, *, layers: int = 1, std: float = 0.4) -> Seq2Seq:
    torch.manual_seed(2)
    model = Seq2Seq(
        src_vocab=12, trg_vocab=20, attention="none" if kind == "none" else "additive",
        embedding_dim=6, encoder_hidden=5, encoder_layers=layers, decoder_hidden=8,
        attention_hidden=7,
        dropout=0.3,
        word_dropout=0.1, source_bridge=kind == "asks", layer_norm=kind == "asks",
        attention_query="state+word" if kind == "asks" else "state",
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=std)
    return model.eval()


@torch.no_grad()
def compare(model: Seq2Seq, ready: Inference, *, rtol: float, atol: float) -> None:
    """Four steps with all places open, then some with every third row gone."""
    src, src_mask = pad_sources(SOURCES)
    decoder, beam = model.decoder, 3
    memory, first = model.encode(src, src_mask)
    source, begun, products = ready.begin(src, src_mask)
    torch.testing.assert_close(begun, first)
    expected = first.unsqueeze(1).expand(-1, beam, -1)
    place = torch.arange(len(SOURCES) * beam)
    state, products = begun.repeat_interleave(beam, 0), products.repeat_interleave(beam, 0)
    tokens = torch.full((len(SOURCES), beam), BOS)
    for step in range(7):
        if step == 4:
            kept = torch.arange(len(place)) % 3 != 1
            place, state, products = place[kept], state[kept], products[kept]
        embedded = decoder.embedding(tokens)
        expected, context, attention = decoder.step(decoder.from_words(embedded), expected, memory)
        logits = decoder.logits(decoder.read_out(expected, context, embedded))
        state, products, made, looked = ready.step(
            tokens.view(-1)[place], state, products, source, place, beam
        )
        for ours, its in (
            (state, expected.flatten(0, 1)[place]),
            (made, logits.flatten(0, 1)[place]),
            (looked.flatten(0, 1)[place], attention.flatten(0, 1)[place]),
        ):
            torch.testing.assert_close(ours, its, rtol=rtol, atol=atol)
        tokens = (tokens * 7 + step + torch.arange(beam)) % 16 + 4


@pytest.mark.parametrize("kind", ["additive", "none", "asks"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("table", [True, False])
def test_the_step_is_that_of_the_network(
    monkeypatch: pytest.MonkeyPatch, kind: str, layers: int, table: bool
) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_LARGEST_TABLE", 1 << 26 if table else 0)
    model = random_model(kind, layers=layers)
    compare(model, Inference(model), rtol=1e-4, atol=1e-5)


def test_a_small_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_CHUNK", 1)
    model = random_model("additive")
    compare(model, Inference(model), rtol=1e-4, atol=1e-5)


def test_large_energies_stay_finite() -> None:
    model = random_model("additive", std=30.0)
    ready = Inference(model)
    src, src_mask = pad_sources(SOURCES)
    with torch.no_grad():
        source, state, products = ready.begin(src, src_mask)
        tokens, place = torch.full((4,), BOS), torch.arange(4)
        state, _, logits, attention = ready.step(tokens, state, products, source, place, 1)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(4, 1))


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("kind", ["additive", "none", "asks"])
def test_int8_is_close_and_does_not_depend_on_neighbours(
    kind: str, vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_saturates", lambda: not vnni)
    model = random_model(kind, std=0.3)
    if model.encoder.bridge is not None:  # states with it leave -1 to 1
        with torch.no_grad():
            model.encoder.bridge.weight.mul_(10)
            states, _ = model.encoder(*pad_sources(SOURCES))
        assert states.abs().max() > 1.2
    ready = Inference(model, int8=True)
    compare(model, ready, rtol=0.0, atol=0.05)
    src, src_mask = pad_sources(SOURCES)
    with torch.no_grad():
        source, state, products = ready.begin(src, src_mask)
        tokens, place = torch.full((4,), BOS), torch.arange(4)
        together = ready.step(tokens, state, products, source, place, 1)[2]
        for row, ids in enumerate(SOURCES):
            alone = ready.begin(*pad_sources([ids]))
            one = ready.step(tokens[:1], alone[1], alone[2], alone[0], place[:1], 1)[2]
            torch.testing.assert_close(one[0], together[row], rtol=1e-5, atol=1e-5)
