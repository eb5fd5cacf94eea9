"""Beam search against brute force, greedy search, teacher forcing and a slow implementation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from nmt.data.batches import pad_sources
from nmt.model import Seq2Seq
from nmt.model.fast.inference import Inference
from nmt.symbols import BOS, EOS, SPECIALS
from nmt.translate.search import (
    Hypothesis,
    beam_search,
    coverage_penalty,
    length_penalty,
    max_length,
)
from tests.helpers.networks import Kind, network

KINDS: tuple[Kind, ...] = ("additive", "none")
SOURCES = [[4, 5, 6, 7, 8, 9], [5, 5, 4], [9], [8, 6, 7, 4]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks are faster on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_model(seed: int, kind: Kind = "additive", trg_vocab: int = 7) -> Seq2Seq:
    """Return a small network with weights large enough for sharp choices."""
    model = network(
        kind, seed=seed, src_vocab=12, trg_vocab=trg_vocab, std=0.7, embedding_dim=6,
        encoder_hidden=5, decoder_hidden=8, attention_hidden=7, dropout=0.3, word_dropout=0.1,
    )  # fmt: skip
    return model.eval()


def search(
    model: Seq2Seq, sources: Sequence[list[int]], longest: int | list[int] = 4, **options: object
) -> list[list[Hypothesis]]:
    src, src_mask = pad_sources(sources)
    limits = [longest] * len(sources) if isinstance(longest, int) else longest
    settings = {"beam": 5, "alpha": 0.8, **options}
    return beam_search(model, src, src_mask, max_lengths=torch.tensor(limits), **settings)


def next_log_probs(model: Seq2Seq, source: list[int], prefixes: list[list[int]]) -> Tensor:
    """Return next-token log-probabilities under teacher forcing, `[prefixes, len + 1, vocab]`.

    All prefixes have one length; they do not contain BOS.
    """
    src, src_mask = pad_sources([source])
    count = len(prefixes)
    trg_in = torch.tensor([[BOS, *ids] for ids in prefixes])
    with torch.no_grad():
        features, _ = model(src.expand(count, -1), src_mask.expand(count, -1), trg_in)
        return torch.log_softmax(model.decoder.logits(features), dim=2)


def forced(model: Seq2Seq, source: list[int], same_length: list[list[int]]) -> list[float]:
    """Return teacher-forced log-probabilities of ids and EOS."""
    log_probs = next_log_probs(model, source, same_length)
    out = torch.tensor([[*ids, EOS] for ids in same_length])
    return log_probs.gather(2, out.unsqueeze(2)).sum(dim=(1, 2)).tolist()


def brute_force(
    model: Seq2Seq, source: list[int], alpha: float, vocab: int, longest: int
) -> list[tuple[float, list[int]]]:
    """Return (score, ids) of every possible sequence, best first."""
    words = [id_ for id_ in range(vocab) if id_ not in SPECIALS]
    scored = []
    for length in range(1, longest + 1):
        sequences = [list(ids) for ids in itertools.product(words, repeat=length)]
        penalty = length_penalty(length, alpha)
        log_probs = forced(model, source, sequences)
        scored += [(value / penalty, ids) for value, ids in zip(log_probs, sequences, strict=True)]
    return sorted(scored, reverse=True)


def slow_beam(
    model: Seq2Seq,
    source: list[int],
    beam: int,
    alpha: float,
    longest: int,
    no_repeat: int = 0,
    n_best: int | None = None,
) -> list[tuple[float, list[int]]]:
    """Beam search in plain Python; return (score, ids), best first.

    With `n_best`, open hypotheses that cannot be among the `n_best` are dropped.
    """
    alive: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(longest + 1):
        if not alive:
            break
        follow = next_log_probs(model, source, [ids for _, ids in alive])[:, -1].tolist()
        allowed = [id_ for id_ in range(len(follow[0])) if id_ not in SPECIALS]
        allowed = [EOS] if length == longest else allowed + [EOS] * (length > 0)
        candidates = [
            (log_prob + values[token], ids, token)
            for (log_prob, ids), values in zip(alive, follow, strict=True)
            for token in allowed
            if not (no_repeat and repeats([*ids, token], no_repeat))
        ]
        candidates = sorted(candidates, reverse=True)[: beam - len(finished)]
        alive = [(value, [*ids, token]) for value, ids, token in candidates if token != EOS]
        penalty = length_penalty(length, alpha)
        finished += [(value / penalty, ids) for value, ids, token in candidates if token == EOS]
        if n_best is not None and len(finished) >= n_best:
            worst = sorted(finished, reverse=True)[n_best - 1][0]
            bound = length_penalty(longest, alpha)
            alive = [(value, ids) for value, ids in alive if value / bound > worst]
    return sorted(finished, reverse=True)


def repeats(ids: list[int], size: int) -> bool:
    """Whether the last n-gram occurs before."""
    runs = [ids[at : at + size] for at in range(len(ids) - size + 1)]
    return bool(runs) and runs[-1] in runs[:-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_as_wide_as_the_tree_equals_brute_force(kind: Kind, alpha: float, seed: int) -> None:
    model = random_model(seed, kind)
    results = search(model, SOURCES, longest=4, beam=3**4 + 3**3 + 9 + 3, alpha=alpha, n_best=10)
    for source, hypotheses in zip(SOURCES, results, strict=True):
        expected = brute_force(model, source, alpha, vocab=7, longest=4)[:10]
        assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
        assert [h.score for h in hypotheses] == pytest.approx([s for s, _ in expected], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_equals_greedy_search(kind: Kind, seed: int) -> None:
    model = random_model(seed, kind, trg_vocab=30)
    results = search(model, SOURCES, longest=12, beam=1)
    lengths = set()
    for source, (hypothesis,) in zip(SOURCES, results, strict=True):
        ids: list[int] = []
        while len(ids) < 12:
            values = next_log_probs(model, source, [ids])[0, -1]
            values[[id_ for id_ in SPECIALS if id_ != EOS or not ids]] = -torch.inf
            best = int(values.argmax())
            if best == EOS:
                break
            ids.append(best)
        assert hypothesis.ids == ids
        lengths.add(len(ids))
    assert len(lengths) > 1 or lengths == {12}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam", [1, 2, 5, 12])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_log_probabilities_equal_teacher_forcing(kind: Kind, beam: int, alpha: float) -> None:
    model = random_model(7, kind, trg_vocab=40)
    results = search(model, SOURCES, longest=[9, 2, 14, 5], beam=beam, alpha=alpha, n_best=beam)
    for source, hypotheses in zip(SOURCES, results, strict=True):
        assert len(hypotheses) == beam
        for hypothesis in hypotheses:
            (expected,) = forced(model, source, [hypothesis.ids])
            assert hypothesis.log_prob == pytest.approx(expected, rel=1e-4, abs=1e-4)
            penalty = length_penalty(len(hypothesis.ids), alpha)
            assert hypothesis.score == pytest.approx(expected / penalty, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("beam", [1, 2, 3, 6])
def test_early_stopping_loses_nothing(beam: int, alpha: float) -> None:
    for seed in range(6):
        model = random_model(seed, trg_vocab=9)
        results = search(model, SOURCES, longest=9, beam=beam, alpha=alpha)
        for source, hypotheses in zip(SOURCES, results, strict=True):
            best, _ = slow_beam(model, source, beam, alpha, longest=9)[0]
            assert hypotheses[0].score >= best - 1e-4


@pytest.mark.parametrize("beam", [1, 2, 3, 6])
@pytest.mark.parametrize("no_repeat", [0, 1, 2])
def test_it_equals_the_slow_implementation(beam: int, no_repeat: int) -> None:
    for seed in range(6):
        model = random_model(seed, trg_vocab=9)
        n_best = min(2, beam)
        results = search(model, SOURCES, 8, beam=beam, n_best=n_best, no_repeat=no_repeat)
        for source, hypotheses in zip(SOURCES, results, strict=True):
            expected = slow_beam(model, source, beam, 0.8, 8, no_repeat, n_best)[:n_best]
            assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
            assert [h.score for h in hypotheses] == pytest.approx(
                [s for s, _ in expected], abs=1e-4
            )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_n_gram_occurs_twice(size: int) -> None:
    repeated = 0
    for seed in range(5):
        model = random_model(seed, trg_vocab=9)
        free = search(model, SOURCES, 20, beam=3)
        for hypotheses, unrestricted in zip(
            search(model, SOURCES, 20, beam=3, no_repeat=size, n_best=3), free, strict=True
        ):
            repeated += any(repeats(unrestricted[0].ids[:n], size) for n in range(1, 21))
            for h in hypotheses:
                assert not any(repeats(h.ids[:n], size) for n in range(1, len(h.ids) + 1))
    assert repeated  # otherwise nothing was forbidden


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_coverage_penalty_ranks_as_brute_force(beta: float) -> None:
    changed = 0
    for seed in range(4):
        model = random_model(seed)
        results = search(model, SOURCES, 4, beam=3**4 + 3**3 + 9 + 3, beta=beta, n_best=5)
        for source, hypotheses in zip(SOURCES, results, strict=True):
            src, src_mask = pad_sources([source])
            scored = []
            for score, ids in brute_force(model, source, 0.8, vocab=7, longest=4):
                with torch.no_grad():
                    _, attention = model(src, src_mask, torch.tensor([[BOS, *ids]]))
                covered = attention[0].sum(dim=0).clamp(max=1.0)
                scored.append((score + beta * float(covered.log().sum()), ids))
            expected = sorted(scored, reverse=True)[:5]
            assert [h.ids for h in hypotheses] == [ids for _, ids in expected]
            assert [h.score for h in hypotheses] == pytest.approx(
                [score for score, _ in expected], abs=1e-3
            )
            changed += scored[0][1] != expected[0][1]
    assert changed


def test_coverage_penalty_follows_wu_et_al() -> None:
    covered = torch.tensor([[2.0, 0.5, 0.1], [1.0, 1.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    expected = torch.tensor([0.3 * (math.log(0.5) + math.log(0.1)), 0.0])
    torch.testing.assert_close(coverage_penalty(covered, mask, 0.3), expected)


def test_an_ensemble_averages_probabilities() -> None:
    models = [random_model(seed, trg_vocab=30) for seed in range(3)]
    src, src_mask = pad_sources(SOURCES)
    results = beam_search(
        [Inference(model) for model in models], src, src_mask,
        beam=4, alpha=0.8, max_lengths=torch.tensor([9, 3, 5, 7]), n_best=4,
    )  # fmt: skip
    for source, hypotheses in zip(SOURCES, results, strict=True):
        for h in hypotheses:
            each = torch.stack([next_log_probs(model, source, [h.ids])[0] for model in models])
            mean = torch.logsumexp(each, dim=0) - math.log(3)
            expected = mean[torch.arange(len(h.ids) + 1), torch.tensor([*h.ids, EOS])].sum()
            assert h.log_prob == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
            torch.testing.assert_close(h.attention.sum(dim=1), torch.ones(len(h.ids) + 1))


def test_an_ensemble_of_equal_models_equals_the_model() -> None:
    model = random_model(2, trg_vocab=30)
    src, src_mask = pad_sources(SOURCES)
    twice = beam_search(
        [Inference(model), Inference(model)], src, src_mask,
        beam=5, alpha=0.8, max_lengths=torch.full((4,), 6),
    )  # fmt: skip
    once = search(model, SOURCES, 6)
    assert [[h.ids for h in results] for results in twice] == [[h.ids for h in f] for f in once]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beam", [1, 4])
def test_other_sentences_and_padding_change_nothing(kind: Kind, beam: int) -> None:
    model = random_model(3, kind, trg_vocab=40)
    limits = [11, 4, 15, 7]
    together = search(model, SOURCES, longest=limits, beam=beam, n_best=beam)
    reversed_order = search(model, SOURCES[::-1], longest=limits[::-1], beam=beam, n_best=beam)[
        ::-1
    ]
    alone = [
        search(model, [source], longest=limit, beam=beam, n_best=beam)[0]
        for source, limit in zip(SOURCES, limits, strict=True)
    ]
    for others in (reversed_order, alone):
        for ours, theirs in zip(together, others, strict=True):
            assert [h.ids for h in ours] == [h.ids for h in theirs]
            for hypothesis, expected in zip(ours, theirs, strict=True):
                assert hypothesis.log_prob == pytest.approx(expected.log_prob, rel=1e-5, abs=1e-5)
                length = min(hypothesis.attention.shape[1], expected.attention.shape[1])
                torch.testing.assert_close(
                    hypothesis.attention[:, :length],
                    expected.attention[:, :length],
                    rtol=1e-4,
                    atol=1e-5,
                )


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_zero_on_padding_and_sums_to_one(kind: Kind) -> None:
    model = random_model(5, kind, trg_vocab=40)
    for source, hypotheses in zip(SOURCES, search(model, SOURCES, 10, n_best=5), strict=True):
        for hypothesis in hypotheses:
            attention = hypothesis.attention
            assert attention.shape[0] == len(hypothesis.ids) + 1  # one row for EOS
            assert attention[:, len(source) :].count_nonzero() == 0
            torch.testing.assert_close(attention.sum(dim=1), torch.ones(len(attention)))


def test_attention_belongs_to_its_hypothesis() -> None:
    model = random_model(5, trg_vocab=40)
    for source, hypotheses in zip(SOURCES, search(model, SOURCES, 10, n_best=5), strict=True):
        src, src_mask = pad_sources([source])
        for hypothesis in hypotheses:
            with torch.inference_mode():
                _, expected = model(src, src_mask, torch.tensor([[BOS, *hypothesis.ids]]))
            attention = hypothesis.attention[:, : len(source)]
            torch.testing.assert_close(attention, expected[0], rtol=1e-4, atol=1e-5)


def test_lengths_stay_within_the_limits() -> None:
    for seed in range(5):
        model = random_model(seed, trg_vocab=20)
        limits = [1, 2, 8, 30]
        results = search(model, SOURCES, limits, n_best=5)
        for limit, hypotheses in zip(limits, results, strict=True):
            assert {1 <= len(h.ids) <= limit for h in hypotheses} == {True}


def test_hypotheses_are_distinct_sorted_and_without_special_ids() -> None:
    for seed in range(5):
        for hypotheses in search(random_model(seed, trg_vocab=12), SOURCES, 6, beam=8, n_best=8):
            assert len({tuple(h.ids) for h in hypotheses}) == 8
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
            assert not {id_ for h in hypotheses for id_ in h.ids} & set(SPECIALS)


def test_a_tree_smaller_than_the_beam_returns_all_sequences() -> None:
    (hypotheses,) = search(random_model(1), [[4, 5]], longest=1, beam=10, n_best=10)
    assert sorted(h.ids for h in hypotheses) == [[4], [5], [6]]


def test_length_penalty_follows_wu_et_al() -> None:
    assert length_penalty(1, 0.7) == 1
    assert length_penalty(7, 1.0) == 2
    assert length_penalty(19, 0.5) == 2
    assert length_penalty(123, 0.0) == 1


def test_max_length_depends_on_the_source() -> None:
    assert max_length(1, 3.0) == 13
    assert max_length(40, 2.5) == 110
