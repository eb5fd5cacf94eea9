"""Training pairs made from training pairs: joined sentences, and span symbols in place of words.

*Joined pairs* are two or three pairs one after the other, so that the network learns to
translate the second sentence and the second clause too (Nguyen, Murray and Chiang 2021).

*Span pairs* hold the symbols of `nmt.text.spans`. A word and its only translation, found by the
word alignment, are replaced by one symbol, wrapped in two, or preceded by one. From these the
network learns to copy a symbol to where its content belongs.

Both are drawn from (seed, epoch): a resumed training sees the same pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nmt.data.alignment import PackedAlignment
from nmt.data.packed import PackedSet, Side
from nmt.data.tokenizer import Tokenizer
from nmt.symbols import SPACE_MARK
from nmt.text.spans import MAX_SPANS, SYMBOLS

_THREE = 0.2  # share of joined pairs made of three pairs instead of two
_CLAUSES = 0.3  # share of joins by a comma, the second sentence in lower case
_MIN_LINK = 0.6  # probability from which a word and a source piece translate one another
_MAX_WORDS = 3  # words of a pair that symbols are put at
_WRAP, _PRECEDE = 0.2, 0.15  # shares of words wrapped in two symbols, preceded by one
_FINAL = frozenset("。.！!？?")

Ids = list[int]
Links = list[tuple[int, int, float]]  # target position, source position, probability


@dataclass(frozen=True)
class Example:
    """A training pair as ids, with the links of its word alignment."""

    src: Ids
    trg: Ids
    links: Links


class PieceTable:
    """What augmentation has to know of the pieces of both vocabularies.

    Args:
        src: source tokenizer.
        trg: target tokenizer.
    """

    def __init__(self, src: Tokenizer, trg: Tokenizer) -> None:
        self.src_symbols = [src.id_of(symbol) for symbol in SYMBOLS]
        self.trg_symbols = [trg.id_of(symbol) for symbol in SYMBOLS]
        space = trg.id_of(SPACE_MARK)
        self.before_symbol = [] if space is None else [space]
        self.src_comma, self.trg_comma = src.id_of(","), trg.id_of(",")
        pieces = [trg.piece(id_) for id_ in range(len(trg))]
        self.starts_word = np.array([piece.startswith(SPACE_MARK) for piece in pieces])
        self.is_word = np.array([any(map(str.isalpha, piece)) for piece in pieces])
        self.is_src_word = np.array(
            [src.piece(id_).isalpha() for id_ in range(len(src))]  # Han, no punctuation
        )
        self.trg_final = {n for n, piece in enumerate(pieces) if piece in _FINAL}
        self.src_final = {n for n in range(len(src)) if src.piece(n) in _FINAL}
        keep = {SPACE_MARK + "I", SPACE_MARK + "I'"}
        self.lower = {
            id_: lower
            for id_, piece in enumerate(pieces)
            if piece not in keep
            and piece != piece.lower()
            and (lower := trg.id_of(piece.lower())) is not None
        }

    @property
    def has_symbols(self) -> bool:
        """Whether both vocabularies hold the span symbols."""
        return None not in (*self.src_symbols, *self.trg_symbols)


def augment(
    corpus: PackedSet,
    pieces: PieceTable,
    *,
    joined: float,
    spans: float,
    max_pieces: int,
    seed: int,
    epoch: int,
) -> PackedSet:
    """Return the corpus with further pairs behind its own.

    Args:
        corpus: the training pairs; span pairs need its word alignment.
        pieces: of both vocabularies.
        joined: joined pairs to make, as a share of the corpus.
        spans: span pairs to make, as a share of the corpus.
        max_pieces: longest side of a pair.
        seed: of the training.
        epoch: from 0.
    """
    random = np.random.default_rng([seed, epoch, 0x5A])
    examples: list[Example] = []
    aligned = corpus.alignment is not None
    for _ in range(round(joined * len(corpus))):
        count = 3 if random.random() < _THREE else 2
        members = [_example(corpus, int(n)) for n in random.integers(len(corpus), size=count)]
        example = members[0]
        for member in members[1:]:
            example = join(example, member, pieces, clause=random.random() < _CLAUSES)
        if max(len(example.src), len(example.trg)) <= max_pieces:
            examples.append(example)
    if aligned and pieces.has_symbols:
        for number in random.integers(len(corpus), size=round(spans * len(corpus))):
            example_or_none = put_symbols(_example(corpus, int(number)), pieces, random)
            if example_or_none is not None:
                examples.append(example_or_none)
    if not examples:
        return corpus
    return replace(corpus, extra=_pack(examples, corpus, aligned=aligned))


def join(first: Example, second: Example, pieces: PieceTable, *, clause: bool) -> Example:
    """Put two pairs one after the other.

    Args:
        first: the first pair.
        second: the second pair.
        pieces: of both vocabularies.
        clause: put a comma in place of the first final mark, and begin the second sentence in
            lower case, where both vocabularies have the pieces.
    """
    src, trg, second_trg = list(first.src), list(first.trg), list(second.trg)
    both = pieces.src_comma is not None and pieces.trg_comma is not None
    if (
        clause and both and len(src) > 1 and len(trg) > 1
        and src[-1] in pieces.src_final and trg[-1] in pieces.trg_final
    ):  # fmt: skip
        src[-1], trg[-1] = int(pieces.src_comma or 0), int(pieces.trg_comma or 0)
        second_trg[0] = pieces.lower.get(second_trg[0], second_trg[0])
    links = [*first.links, *((i + len(trg), j + len(src), p) for i, j, p in second.links)]
    return Example(src + list(second.src), trg + second_trg, links)


def put_symbols(
    example: Example, pieces: PieceTable, random: np.random.Generator
) -> Example | None:
    """Put span symbols at up to three words of a pair; None if it has no word for it."""
    words = [word for word in aligned_words(example, pieces) if random.random() < 0.5]
    random.shuffle(words)
    words = sorted(words[:_MAX_WORDS], key=lambda word: word[0])
    if not words:
        return None
    actions = [_choose(random) for _ in words]
    count = sum(2 if action == "wrap" else 1 for action in actions)
    next_symbol = int(random.integers(MAX_SPANS - count + 1)) if random.random() < 0.3 else 0
    # Per source position and per target word: symbols before it, after it, and whether it stays.
    src_edits: dict[int, tuple[Ids, Ids, bool]] = {}
    trg_edits: dict[int, tuple[Ids, Ids, bool, int]] = {}
    for (source, begin, end), action in zip(words, actions, strict=True):
        before, after = [next_symbol], [next_symbol + 1] if action == "wrap" else []
        next_symbol += len(before) + len(after)
        stays = action != "replace"
        src_edits[source] = (before, after, stays)
        trg_edits[begin] = (before, after, stays, end)
    return _edited(example, pieces, src_edits, trg_edits)


def aligned_words(example: Example, pieces: PieceTable) -> list[tuple[int, int, int]]:
    """Return target words that translate one source piece, which translates no other.

    Returns:
        Source position, and begin and end of the word's target pieces.
    """
    strongest: dict[int, tuple[int, float]] = {}
    users: dict[int, set[int]] = {}
    for target, source, probability in example.links:
        if probability > strongest.get(target, (0, 0.0))[1]:
            strongest[target] = (source, probability)
    bounds = [
        n for n, id_ in enumerate(example.trg)
        if n == 0 or pieces.starts_word[id_] or not pieces.is_word[id_]
    ]  # fmt: skip
    words = []
    for begin, end in zip(bounds, [*bounds[1:], len(example.trg)], strict=True):
        links = [strongest.get(n, (-1, 0.0)) for n in range(begin, end)]
        for source, _ in links:
            users.setdefault(source, set()).add(begin)
        source, probability = links[0]
        if (
            pieces.starts_word[example.trg[begin]]
            and pieces.is_word[example.trg[begin:end]].any()
            and {linked for linked, _ in links} == {source}
            and probability >= _MIN_LINK
            and pieces.is_src_word[example.src[source]]
        ):
            words.append((source, begin, end))
    return [word for word in words if len(users[word[0]]) == 1]


def _choose(random: np.random.Generator) -> str:
    draw = random.random()
    return "wrap" if draw < _WRAP else "precede" if draw < _WRAP + _PRECEDE else "replace"


def _edited(
    example: Example,
    pieces: PieceTable,
    src_edits: dict[int, tuple[Ids, Ids, bool]],
    trg_edits: dict[int, tuple[Ids, Ids, bool, int]],
) -> Example:
    src: Ids = []
    src_position: dict[int, int] = {}
    src_symbol: dict[int, int] = {}
    for position, id_ in enumerate(example.src):
        before, after, stays = src_edits.get(position, ([], [], True))
        for symbol in before:
            src_symbol[symbol] = len(src)
            src.append(int(pieces.src_symbols[symbol] or 0))
        if stays:
            src_position[position] = len(src)
            src.append(id_)
        for symbol in after:
            src_symbol[symbol] = len(src)
            src.append(int(pieces.src_symbols[symbol] or 0))
    trg: Ids = []
    trg_position: dict[int, int] = {}
    links: Links = []

    def put(symbols: Ids) -> None:
        for symbol in symbols:
            ids = [*pieces.before_symbol, int(pieces.trg_symbols[symbol] or 0)]
            links.extend((len(trg) + n, src_symbol[symbol], 1.0) for n in range(len(ids)))
            trg.extend(ids)

    position = 0
    while position < len(example.trg):
        before, after, stays, end = trg_edits.get(position, ([], [], True, position + 1))
        put(before)
        if stays:
            for inner in range(position, end):
                trg_position[inner] = len(trg)
                trg.append(example.trg[inner])
        put(after)
        position = end
    links += [
        (trg_position[i], src_position[j], p)
        for i, j, p in example.links
        if i in trg_position and j in src_position
    ]
    return Example(src, trg, links)


def _example(corpus: PackedSet, number: int) -> Example:
    src, trg = corpus.src[number], corpus.trg[number]
    links: Links = []
    if corpus.alignment is not None:
        cells, probabilities = corpus.alignment.entries(number)
        rows, columns = np.divmod(cells.astype(np.int64), len(src))
        links = list(
            zip(rows.tolist(), columns.tolist(), probabilities.astype(float).tolist(), strict=True)
        )
    return Example(src.tolist(), trg.tolist(), links)


def _pack(examples: Sequence[Example], corpus: PackedSet, *, aligned: bool) -> PackedSet:
    def side(sentences: list[Ids], dtype: np.dtype[np.generic]) -> Side:
        ids = np.array([id_ for sentence in sentences for id_ in sentence], dtype=dtype)
        return Side(ids, np.cumsum([len(sentence) for sentence in sentences]))

    alignment = None
    if aligned:
        cells = [i * len(e.src) + j for e in examples for i, j, _ in e.links]
        alignment = PackedAlignment(
            np.cumsum([len(e.links) for e in examples]),
            np.array(cells, dtype=np.uint32),
            np.array([p for e in examples for _, _, p in e.links], dtype=np.float16),
        )
    return PackedSet(
        side([e.src for e in examples], corpus.src.ids.dtype),
        side([e.trg for e in examples], corpus.trg.ids.dtype),
        alignment,
    )
