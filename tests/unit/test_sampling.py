from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from nmt.data.packed import PackedSet, Side
from nmt.data.tokenizer import Tokenizer
from nmt.distributed import Workers
from nmt.run.directory import Run
from nmt.train.gradient import Gradient
from nmt.train.sampling import SubwordSampler, make_sampler

LINES = [("我们喜欢苹果。", "We like apples."), ("你看见猫。", "You see the cat."), ("我", "I")]


def packed(src: Tokenizer, trg: Tokenizer, lines: list[tuple[str, str]]) -> PackedSet:
    sides = []
    for tokenizer, texts in zip((src, trg), zip(*lines, strict=True), strict=True):
        cut = [tokenizer.encode(text) for text in texts]
        sides.append(Side(np.concatenate(cut), np.cumsum([len(ids) for ids in cut])))
    return PackedSet(*sides)


@pytest.fixture
def run(toy_run: Path) -> Run:
    return Run.open(toy_run)


@pytest.fixture
def corpus(run: Run) -> PackedSet:
    return packed(run.src, run.trg, LINES * 4)


def texts(tokenizer: Tokenizer, side: Side) -> list[str]:
    return [tokenizer.decode(side[number].tolist()) for number in range(len(side))]


def test_other_pieces_spell_the_same_text(run: Run, corpus: PackedSet) -> None:
    sampler = SubwordSampler(run.src, run.trg, 0.1, seed=1)
    chosen = np.array([4, 0, 11])
    cut = [sampler(corpus, chosen, draw) for draw in range(20)]
    for one in cut:
        assert texts(run.src, one.src) == [texts(run.src, corpus.src)[n] for n in chosen]
        assert texts(run.trg, one.trg) == [texts(run.trg, corpus.trg)[n] for n in chosen]
    assert len({tuple(one.trg[0].tolist()) for one in cut}) > 3


def test_the_same_draw_gives_the_same_pieces(run: Run, corpus: PackedSet) -> None:
    everything = np.arange(len(corpus))
    one, same = (
        SubwordSampler(run.src, run.trg, 0.1, seed=1)(corpus, everything, 7) for _ in range(2)
    )
    other = SubwordSampler(run.src, run.trg, 0.1, seed=2)(corpus, everything, 7)
    np.testing.assert_array_equal(one.trg.ids, same.trg.ids)
    np.testing.assert_array_equal(one.src.ends, same.src.ends)
    assert one.trg.ids.tolist() != other.trg.ids.tolist()


def test_a_large_alpha_draws_the_best(run: Run, corpus: PackedSet) -> None:
    cut = SubwordSampler(run.src, run.trg, 50.0, seed=1)(corpus, np.arange(len(corpus)), 0)
    np.testing.assert_array_equal(cut.src.ids, corpus.src.ids)
    np.testing.assert_array_equal(cut.trg.ends, corpus.trg.ends)


def test_segmentations_are_drawn_by_their_probability(run: Run) -> None:
    corpus = packed(run.src, run.trg, [LINES[0]] * 4000)
    cut = SubwordSampler(run.src, run.trg, 0.5, seed=3)(corpus, np.arange(4000), 0)
    seen = Counter(tuple(cut.trg[number].tolist()) for number in range(4000))
    ways = run.trg.segmentations(run.trg.encode(LINES[0][1]), 16)
    log_probs = run.trg.piece_log_probs()
    weights = np.array([np.exp(0.5 * log_probs[way].sum()) for way in ways])
    expected = 4000 * weights / weights.sum()
    assert set(seen) <= {tuple(way) for way in ways}
    for way, count in zip(ways, expected, strict=True):
        assert seen[tuple(way)] == pytest.approx(count, abs=5 * np.sqrt(count) + 1)


def test_broken_bytes_stay_as_they_are(run: Run) -> None:
    first, _ = run.src.byte_ids
    broken = [first + 0xE4, first + 0x01]  # no character begins like this
    assert run.src.segmentations(broken, 16) == [broken]


def test_a_batch_is_divided_by_the_tokens_it_has_now(run: Run, corpus: PackedSet) -> None:
    sampler = SubwordSampler(run.src, run.trg, 0.0, seed=1)
    model = run.build_model().eval()  # no dropout, or parts would differ
    gradient = Gradient(
        model, corpus, 0.1, torch.device("cpu"), Workers(), sample=sampler
    )  # fmt: skip
    everything = np.arange(len(corpus))
    loss, tokens, *_ = gradient.compute([everything], 1, draw=5)
    cut = sampler(corpus, everything, 5)
    assert tokens == len(cut.trg.ids) + len(cut) != len(corpus.trg.ids) + len(corpus)
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    halves = [everything[: len(corpus) // 3], everything[len(corpus) // 3 :]]
    in_blocks, tokens_in_blocks, *_ = gradient.compute(halves, 1, draw=5)
    assert tokens_in_blocks == tokens
    torch.testing.assert_close(in_blocks, loss)
    gradient.most_cells = 60
    in_parts, tokens_in_parts, *_ = gradient.compute([everything], 1, draw=5)
    assert tokens_in_parts == tokens
    torch.testing.assert_close(in_parts, loss)
    again = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-6)


def test_none_unless_asked_for(run: Run) -> None:
    assert make_sampler(run) is None
