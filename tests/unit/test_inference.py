"""`Inference.step` against `Decoder.step`."""

from __future__ import annotations

import pytest
import torch

import nmt.model.fast.inference
from nmt.data.batches import pad_sources
from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.symbols import BOS
from tests.helpers.networks import KINDS, Kind, network

SOURCES = [[4, 5, 6, 7, 8, 9], [5, 5, 4], [9], [8, 6, 7, 4]]


def random_model(kind: Kind, *, layers: int = 1, std: float = 0.4) -> Seq2Seq:
    model = network(
        kind, seed=2, src_vocab=12, trg_vocab=20, std=std, encoder_layers=layers, dropout=0.3
    )
    return model.eval()


@torch.no_grad()
def compare(model: Seq2Seq, inference: Inference, *, rtol: float, atol: float) -> None:
    """Compare four steps with every slot open, then three without every third row."""
    src, src_mask = pad_sources(SOURCES)
    decoder, beam = model.decoder, 3
    memory, first = model.encode(src, src_mask)
    source, initial, products = inference.begin(src, src_mask)
    torch.testing.assert_close(initial, first)
    expected = first.unsqueeze(1).expand(-1, beam, -1)
    slots = torch.arange(len(SOURCES) * beam)
    state, products = initial.repeat_interleave(beam, 0), products.repeat_interleave(beam, 0)
    tokens = torch.full((len(SOURCES), beam), BOS)
    for step in range(7):
        if step == 4:
            keep = torch.arange(len(slots)) % 3 != 1
            slots, state, products = slots[keep], state[keep], products[keep]
        embedded = decoder.embedding(tokens)
        expected, context, attention = decoder.step(decoder.input_gates(embedded), expected, memory)
        logits = decoder.logits(decoder.read_out(expected, context, embedded))
        state, products, fast_logits, fast_attention = inference.step(
            tokens.view(-1)[slots], state, products, source, slots, beam
        )
        for fast, reference in (
            (state, expected.flatten(0, 1)[slots]),
            (fast_logits, logits.flatten(0, 1)[slots]),
            (fast_attention.flatten(0, 1)[slots], attention.flatten(0, 1)[slots]),
        ):
            torch.testing.assert_close(fast, reference, rtol=rtol, atol=atol)
        tokens = (tokens * 7 + step + torch.arange(beam)) % 16 + 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("table", [True, False])
def test_the_step_equals_the_decoder_step(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, layers: int, table: bool
) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_MAX_TABLE", 1 << 26 if table else 0)
    model = random_model(kind, layers=layers)
    compare(model, Inference(model), rtol=1e-4, atol=1e-5)


def test_the_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_CHUNK", 1)
    model = random_model("additive")
    compare(model, Inference(model), rtol=1e-4, atol=1e-5)


def test_large_energies_stay_finite() -> None:
    model = random_model("additive", std=30.0)
    inference = Inference(model)
    src, src_mask = pad_sources(SOURCES)
    with torch.no_grad():
        source, state, products = inference.begin(src, src_mask)
        tokens, slots = torch.full((4,), BOS), torch.arange(4)
        state, _, logits, attention = inference.step(tokens, state, products, source, slots, 1)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones(4, 1))


@pytest.mark.parametrize("vnni", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_close_and_independent_of_other_rows(
    kind: Kind, vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nmt.model.fast.inference, "_int8_saturates", lambda: not vnni)
    model = random_model(kind, std=0.3)
    if model.encoder.bridge is not None:  # encoder states exceed [-1, 1]
        with torch.no_grad():
            model.encoder.bridge.weight.mul_(10)
            states, _ = model.encoder(*pad_sources(SOURCES))
        assert states.abs().max() > 1.2
    inference = Inference(model, int8=True)
    compare(model, inference, rtol=0.0, atol=0.05)
    src, src_mask = pad_sources(SOURCES)
    with torch.no_grad():
        source, state, products = inference.begin(src, src_mask)
        tokens, slots = torch.full((4,), BOS), torch.arange(4)
        together = inference.step(tokens, state, products, source, slots, 1)[2]
        for row, ids in enumerate(SOURCES):
            source, state, products = inference.begin(*pad_sources([ids]))
            alone = inference.step(tokens[:1], state, products, source, slots[:1], 1)[2]
            torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)
