"""From attention over pieces to the user's own characters and words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.data.tokenizer import Tokenizer, byte_of
from nmt.symbols import EOS, SPACE_MARK
from nmt.text.normalise import character_origins
from nmt.translate.search import Hypothesis

_DIAGONAL = 4.0

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """How much each word of a translation looked at each character of its source.

    Attributes:
        characters: of the source as the user wrote it.
        words: of the translation, split at spaces.
        weights: `[words, characters]`, rows sum to 1 (a word is the mean of its
            pieces, but for punctuation if there is more; a piece's weight is shared evenly
            by its characters). What was looked at when the sentence ended is left out.
    """

    characters: list[str]
    words: list[str]
    weights: Matrix

    def links(self) -> list[tuple[int, int]]:
        """The characters each word stands for: (character, word), both from 0, sorted.

        For each word the strongest piece, after weights were multiplied by `near_diagonal`.
        Spaces are never linked.
        """
        if not self.weights.any():
            return []
        sources = len(self.characters)
        near = near_diagonal(*self.weights.shape)
        spaces = np.array([character.isspace() for character in self.characters])
        scored = np.where(spaces, 0.0, self.weights * near)
        found = []
        for word, best in enumerate(scored.argmax(axis=1)):
            if scored[word, best] == 0:
                continue
            # The characters of a piece share its weight evenly.
            same = np.isclose(self.weights[word], self.weights[word, best], rtol=1e-4) & ~spaces
            first = last = int(best)
            while first > 0 and same[first - 1]:
                first -= 1
            while last + 1 < sources and same[last + 1]:
                last += 1
            found += [(at, word) for at in range(first, last + 1)]
        return sorted(found)


def near_diagonal(targets: int, sources: int) -> NDArray[np.float64]:
    """What weights are multiplied by before the largest is taken: exp(-4 |i/I - j/J|).

    Translations run along their source (Dyer et al. 2013), and a network's weights are the
    less certain the longer the sentence is.

    Returns:
        `[targets, sources]`.
    """
    down = (np.arange(targets)[:, None] + 0.5) / targets
    across = (np.arange(sources)[None, :] + 0.5) / sources
    prior: NDArray[np.float64] = np.exp(-_DIAGONAL * np.abs(down - across))
    return prior


def joined(source: str, alignments: list[Alignment], begins: list[int]) -> Alignment:
    """The alignment of a line from those of its parts.

    Args:
        source: the line.
        alignments: of its parts.
        begins: where in the line each begins, in characters.
    """
    words = [word for one in alignments for word in one.words]
    weights = np.zeros((len(words), len(source)), dtype=np.float32)
    row = 0
    for one, begin in zip(alignments, begins, strict=True):
        height, width = one.weights.shape
        weights[row : row + height, begin : begin + width] = one.weights
        row += height
    return Alignment(list(source), words, weights)


def joined_links(alignments: list[Alignment], begins: list[int]) -> list[tuple[int, int]]:
    """The links of a line from those of its parts, whose diagonals are their own.

    The matrix of the whole line is never made: of a line of a megabyte it would not fit.
    """
    found: list[tuple[int, int]] = []
    words = 0
    for one, begin in zip(alignments, begins, strict=True):
        found += [(begin + character, words + word) for character, word in one.links()]
        words += len(one.words)
    return sorted(found)


def align(source: str, hypothesis: Hypothesis, src: Tokenizer, trg: Tokenizer) -> Alignment:
    """Merge the attention of a hypothesis from pieces to characters and words."""
    spread = _pieces_to_characters(source, src)  # [pieces, characters]
    words, of_word = _pieces_to_words(hypothesis.ids, trg)  # [words, target pieces]
    attention = hypothesis.attention.numpy()[: len(hypothesis.ids), : len(spread)]
    return Alignment(list(source), words, of_word @ attention @ spread)


def _pieces_to_characters(source: str, tokenizer: Tokenizer) -> Matrix:
    pieces = tokenizer.pieces(source)
    origin = character_origins(source, tokenizer.normalise(source), simplify=tokenizer.simplify)
    spread = np.zeros((len(pieces), len(source)), dtype=np.float32)
    for row, piece in enumerate(pieces):
        characters = sorted({origin[at] for at in range(piece.begin, piece.end)})
        if characters:
            spread[row, characters] = 1 / len(characters)
    return spread


def _pieces_to_words(ids: list[int], tokenizer: Tokenizer) -> tuple[list[str], Matrix]:
    groups: list[list[int]] = []
    for index, id_ in enumerate(ids):
        starts = tokenizer.piece(id_).startswith(SPACE_MARK) or not groups
        if id_ == EOS:
            continue
        if starts:
            groups.append([index])
        else:
            groups[-1].append(index)
    words, kept = [], []
    for group in groups:
        word = tokenizer.decode([ids[index] for index in group])
        if word:  # a lone space mark is no word
            words.append(word)
            kept.append(group)
    matrix = np.zeros((len(words), len(ids)), dtype=np.float32)
    for row, group in enumerate(kept):
        counted = _counted(group, ids, tokenizer)
        matrix[row, counted] = 1 / len(counted)
    return words, matrix


def _counted(group: list[int], ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Of the pieces of a word those that say where it looked.

    "China." looked for 中国; that its full stop looked at another, and more sharply, is no matter.
    """
    pieces = [tokenizer.piece(ids[at]).strip(SPACE_MARK) for at in group]
    spelt: list[bytearray] = []  # of each piece, or of the character that it is a byte of
    for piece in pieces:
        byte = byte_of(piece)
        if byte is not None and byte & 0xC0 == 0x80 and spelt:  # goes on with the last one's
            spelt[-1].append(byte)
            spelt.append(spelt[-1])
        else:
            spelt.append(bytearray(piece.encode() if byte is None else [byte]))
    texts = [part.decode("utf-8", "replace") for part in spelt]
    if all(_is_punctuation(text) for text in texts if text):
        return group
    return [at for at, text in zip(group, texts, strict=True) if not _is_punctuation(text)]


def _is_punctuation(text: str) -> bool:
    signs = (unicodedata.category(character)[0] == "P" for character in text)
    return bool(text) and all(signs) and text != "%"
