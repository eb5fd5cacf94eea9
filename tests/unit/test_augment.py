"""Training pairs made from training pairs: joined pairs and span pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nmt.data.alignment import PackedAlignment
from nmt.data.augment import Example, PieceTable, aligned_words, augment, join, put_symbols
from nmt.data.batches import make_batch
from nmt.data.packed import PackedSet, Side
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.text.spans import SYMBOLS

PAIRS = [
    ("我爱猫。", "I love cats."), ("你看书。", "You read books."), ("他找茶。", "He wants tea."),
    ("我看猫。", "I see cats."), ("她爱书。", "She loves books."),
]  # fmt: skip
# Target word to source character, by hand: each word translates one character.
LINKS = {"I": 0, "You": 0, "He": 0, "She": 0, "love": 1, "loves": 1, "read": 1, "see": 1,
         "wants": 1, "cats": 2, "books": 2, "tea": 2, ".": 3}  # fmt: skip


def tokenizer(side: int) -> Tokenizer:
    lines = [pair[side] for pair in PAIRS] * 20
    trained, _ = train_tokenizer(
        lines,
        vocab=330,
        simplify=side == 0,
        character_coverage=1.0,
        space_first=side == 1,
        name="x",
    )
    return trained


@pytest.fixture(scope="module")
def pieces() -> PieceTable:
    return PieceTable(tokenizer(0), tokenizer(1))


def example(number: int) -> Example:
    src, trg = tokenizer(0), tokenizer(1)
    zh, en = PAIRS[number]
    src_ids, trg_ids = src.encode(zh), trg.encode(en)
    links, word = [], ""
    for position, id_ in enumerate(trg_ids):
        piece = trg.piece(id_)
        if piece.startswith("\u2581") or piece == ".":
            rest = "".join(trg.piece(i) for i in trg_ids[position:]).lstrip("\u2581")
            word = "." if piece == "." else rest.split("\u2581")[0].rstrip(".")
        links.append((position, LINKS[word], 1.0))
    return Example(src_ids, trg_ids, links)


def corpus(copies: int = 20) -> PackedSet:
    examples = [example(number) for number in range(len(PAIRS))] * copies
    sides = [
        Side(np.concatenate(ids).astype(np.uint16), np.cumsum([*map(len, ids)]))
        for ids in ([e.src for e in examples], [e.trg for e in examples])
    ]
    cells = [i * len(e.src) + j for e in examples for i, j, _ in e.links]
    alignment = PackedAlignment(
        np.cumsum([len(e.links) for e in examples]),
        np.array(cells, np.uint32),
        np.ones(len(cells), np.float16),
    )
    return PackedSet(*sides, alignment)


def test_every_aligned_word_of_a_simple_pair_is_found(pieces: PieceTable) -> None:
    words = aligned_words(example(0), pieces)
    assert [source for source, _, _ in words] == [0, 1, 2]


def test_span_pairs_hold_each_symbol_once_on_both_sides_and_linked(pieces: PieceTable) -> None:
    random = np.random.default_rng(1)
    seen = set()
    for draw in range(200):
        pair = put_symbols(example(draw % len(PAIRS)), pieces, random)
        if pair is None:
            continue
        for number in range(len(SYMBOLS)):
            src_id, trg_id = pieces.src_symbols[number], pieces.trg_symbols[number]
            assert pair.src.count(src_id) == pair.trg.count(trg_id) <= 1
            if src_id in pair.src:
                seen.add(number)
                link = (pair.trg.index(trg_id), pair.src.index(src_id), 1.0)
                assert link in pair.links
        assert all(i < len(pair.trg) and j < len(pair.src) for i, j, _ in pair.links)
    assert len(seen) == len(SYMBOLS)


def test_a_joined_pair_is_both_pairs_with_their_links(pieces: PieceTable) -> None:
    first, second = example(0), example(1)
    joined = join(first, second, pieces, clause=False)
    assert joined.src == [*first.src, *second.src]
    assert joined.trg == [*first.trg, *second.trg]
    assert len(joined.links) == len(first.links) + len(second.links)
    assert joined.links[-1] == (len(joined.trg) - 1, len(joined.src) - 1, 1.0)


def test_extra_pairs_are_batched_like_pairs_of_the_corpus(pieces: PieceTable) -> None:
    base = corpus()
    both = augment(base, pieces, joined=0.3, spans=0.3, max_pieces=60, seed=1, epoch=0)
    assert both.extra is not None
    assert len(both.extra) > 0.4 * len(base)
    assert len(both.lengths[0]) == len(base) + len(both.extra)
    chosen = np.array([3, len(base), 5, len(base) + len(both.extra) - 1])
    batch = make_batch(both, chosen)
    for row, number in enumerate(chosen.tolist()):
        in_base = number < len(base)
        alone = make_batch(
            base if in_base else both.extra, np.array([number - (0 if in_base else len(base))])
        )
        src_len, trg_len = alone.src.shape[1], alone.trg_out.shape[1]
        assert batch.src[row, :src_len].tolist() == alone.src[0].tolist()
        assert batch.src_mask[row].sum() == src_len
        assert batch.trg_out[row, :trg_len].tolist() == alone.trg_out[0].tolist()
        assert batch.alignment is not None
        assert alone.alignment is not None
        assert batch.alignment[row, :trg_len, :src_len].equal(alone.alignment[0])
        assert batch.alignment[row].sum() == alone.alignment.sum()


def test_the_same_seed_and_epoch_give_the_same_pairs(pieces: PieceTable) -> None:
    base = corpus()

    def extra_ids(epoch: int) -> list[int]:
        extra = augment(
            base, pieces, joined=0.2, spans=0.2, max_pieces=60, seed=1, epoch=epoch
        ).extra
        assert extra is not None
        return extra.trg.ids.tolist()

    assert extra_ids(0) == extra_ids(0)
    assert extra_ids(0) != extra_ids(1)


def test_without_shares_or_alignment_nothing_is_added(pieces: PieceTable) -> None:
    base = corpus()
    assert augment(base, pieces, joined=0, spans=0, max_pieces=60, seed=1, epoch=0) is base
    unaligned = replace(base, alignment=None)
    assert (
        augment(unaligned, pieces, joined=0, spans=1, max_pieces=60, seed=1, epoch=0) is unaligned
    )
