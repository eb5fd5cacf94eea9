from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nmt.data.batches import Blocks, make_batch, pad_sources, plan_epoch
from nmt.data.packed import PackedSet, PackedWriter
from nmt.symbols import BOS, EOS, PAD
from tests.helpers.toy import add


def random_lengths(n: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    trg = random.geometric(0.1, n).clip(1, 60)
    return (trg * random.uniform(0.5, 1.5, n)).astype(np.int64).clip(1, 80), trg


def flat(plan: list[Blocks]) -> Blocks:
    return [block for batch in plan for block in batch]


def test_every_sentence_is_in_exactly_one_batch() -> None:
    src, trg = random_lengths(5000)
    plan = plan_epoch(src, trg, 500, seed=1, epoch=0)
    assert sorted(np.concatenate(flat(plan)).tolist()) == list(range(5000))


def test_batches_are_near_the_budget_with_little_padding() -> None:
    src, trg = random_lengths(20_000)
    plan = flat(plan_epoch(src, trg, 1000, seed=1, epoch=0))
    sizes = np.array([(trg[batch] + 1).sum() for batch in plan])
    assert (sizes <= 1000 + 61).all()
    assert np.median(sizes) > 900
    cells = sum((trg[b].max() + 1) * len(b) + src[b].max() * len(b) for b in plan)
    real = (trg + 1).sum() + src.sum()
    assert 1 - real / cells < 0.06
    # Sorted by target length alone, 15 % of the source cells would be padding here.
    assert 1 - src.sum() / sum(src[b].max() * len(b) for b in plan) < 0.1
    assert 1 - (trg + 1).sum() / sum((trg[b].max() + 1) * len(b) for b in plan) < 0.01


@pytest.mark.parametrize("tokens", [2000, 8000, 32_000])
def test_padding_does_not_grow_with_the_batch_size(tokens: int) -> None:
    src, trg = random_lengths(20_000)
    plan = plan_epoch(src, trg, tokens, seed=1, epoch=0, block_tokens=2000)
    blocks = flat(plan)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(20_000))
    sizes = [sum((trg[block] + 1).sum() for block in batch) for batch in plan[:-1]]
    assert max(sizes) <= tokens + 61
    assert np.mean(sizes) > 0.97 * tokens
    cells = sum((trg[b].max() + 1 + src[b].max()) * len(b) for b in blocks)
    assert 1 - (trg + 1 + src).sum() / cells < 0.08


def test_the_plan_is_a_pure_function_of_seed_and_epoch() -> None:
    lengths = random_lengths(1000)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(i) for i in np.concatenate(flat(plan_epoch(*lengths, 200, seed, epoch)))]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_a_sentence_longer_than_the_budget_is_kept() -> None:
    lengths = np.array([3, 100, 4])
    plan = plan_epoch(lengths, lengths, 10, 1, 0)
    assert sorted(np.concatenate(flat(plan)).tolist()) == [0, 1, 2]


@pytest.fixture
def packed(tmp_path: Path) -> PackedSet:
    with PackedWriter(tmp_path, "train", (100, 70_000)) as out:
        add(out, [[5, 6, 7], [8]], [[9], [10, 11]])
        add(out, [[12, 13]], [[69_999, 4, 5]])
    return PackedSet.open(tmp_path, "train")


def test_a_batch_has_bos_eos_and_padding(packed: PackedSet) -> None:
    batch = make_batch(packed, np.array([1, 2]))
    assert batch.src.tolist() == [[8, PAD], [12, 13]]
    assert batch.src_mask.tolist() == [[True, False], [True, True]]
    assert batch.trg_in.tolist() == [[BOS, 10, 11, PAD], [BOS, 69_999, 4, 5]]
    assert batch.trg_out.tolist() == [[10, 11, EOS, PAD], [69_999, 4, 5, EOS]]
    assert batch.trg_tokens == 7


def test_a_batch_of_the_first_sentence(packed: PackedSet) -> None:
    batch = make_batch(packed, np.array([0]))
    assert batch.src.tolist() == [[5, 6, 7]]
    assert batch.trg_out.tolist() == [[9, EOS]]


def test_pad_sources() -> None:
    src, mask = pad_sources([[4, 5], [6]])
    assert src.tolist() == [[4, 5], [6, PAD]]
    assert torch.equal(mask, torch.tensor([[True, True], [True, False]]))


def test_target_positions_select_the_real_target_tokens(packed: PackedSet) -> None:
    batch = make_batch(packed, np.array([0, 2, 1]))
    assert batch.src_mask.sum(dim=1).tolist() == [3, 2, 1]
    assert batch.target_positions is not None
    ids = batch.trg_out.flatten()[batch.target_positions].tolist()
    assert ids == [9, EOS, 69_999, 4, 5, EOS, 10, 11, EOS]
    assert len(ids) == batch.trg_tokens
