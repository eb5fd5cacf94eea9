"""Convert attention over pieces to attention between characters and words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.data.tokenizer import Piece, Tokenizer, byte_of
from nmt.symbols import EOS, SPACE_MARK
from nmt.text.normalise import character_origins
from nmt.text.spans import Masked, restore_with_origins
from nmt.translate.search import Hypothesis

_DIAGONAL = 4.0

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class AttentionMap:
    """Attention of each target word to each source character.

    Attributes:
        characters: of the source as the user wrote it.
        words: of the translation, split at spaces.
        weights: `[words, characters]`, rows sum to 1 (a word is the mean of its
            pieces, but for punctuation if there is more; a piece's weight is shared evenly
            by its characters). The attention of EOS is omitted.
    """

    characters: list[str]
    words: list[str]
    weights: Matrix

    def links(self) -> list[tuple[int, int]]:
        """Return the word alignment as sorted pairs (character, word), both from 0.

        Each word is linked to its piece of largest weight times `near_diagonal`.
        Spaces are never linked.
        """
        if not self.weights.any():
            return []
        sources = len(self.characters)
        near = near_diagonal(*self.weights.shape)
        spaces = np.array([character.isspace() for character in self.characters])
        scored = np.where(spaces, 0.0, self.weights * near)
        links = []
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
            links += [(at, word) for at in range(first, last + 1)]
        return sorted(links)


def near_diagonal(targets: int, sources: int) -> NDArray[np.float64]:
    """Return the diagonal prior exp(-4 |i/I - j/J|).

    The form is that of Dyer et al. (2013). It helps most in long sentences, where the
    attention is less certain.

    Returns:
        `[targets, sources]`.
    """
    down = (np.arange(targets)[:, None] + 0.5) / targets
    across = (np.arange(sources)[None, :] + 0.5) / sources
    prior: NDArray[np.float64] = np.exp(-_DIAGONAL * np.abs(down - across))
    return prior


def join_maps(source: str, maps: list[AttentionMap], begins: list[int]) -> AttentionMap:
    """Join the attention maps of a line's parts.

    Args:
        source: the line.
        maps: attention maps of the parts.
        begins: offsets of the parts in the line, in characters.
    """
    words = [word for part in maps for word in part.words]
    weights = np.zeros((len(words), len(source)), dtype=np.float32)
    row = 0
    for part, begin in zip(maps, begins, strict=True):
        height, width = part.weights.shape
        weights[row : row + height, begin : begin + width] = part.weights
        row += height
    return AttentionMap(list(source), words, weights)


def join_links(maps: list[AttentionMap], begins: list[int]) -> list[tuple[int, int]]:
    """Join the links of a line's parts; each part has its own diagonal prior.

    The matrix of the line is not built: for a line of 1 MB it would not fit in memory.
    """
    links: list[tuple[int, int]] = []
    words = 0
    for part, begin in zip(maps, begins, strict=True):
        links += [(begin + character, words + word) for character, word in part.links()]
        words += len(part.words)
    return sorted(links)


def map_attention(
    source: str,
    pieces: list[Piece],
    hypothesis: Hypothesis,
    src: Tokenizer,
    trg: Tokenizer,
    masked: Masked | None = None,
) -> AttentionMap:
    """Merge the attention of a hypothesis from pieces to characters and words.

    Args:
        source: text of the part.
        pieces: of the tokenised source.
        hypothesis: of the search.
        src: source tokenizer.
        trg: target tokenizer.
        masked: the source as it was tokenised, if it has protected spans.
    """
    spread = _pieces_to_characters(source, pieces, src, masked)  # [pieces, characters]
    words, word_pieces = _pieces_to_words(hypothesis.ids, trg)  # [words, target pieces]
    if masked is not None:
        words, merge = _restored_words(words, masked)
        word_pieces = merge @ word_pieces
    attention = hypothesis.attention.numpy()[: len(hypothesis.ids), : len(spread)]
    return AttentionMap(list(source), words, word_pieces @ attention @ spread)


def _restored_words(words: list[str], masked: Masked) -> tuple[list[str], Matrix]:
    """Return the words after the spans are restored, and their mix of the words before."""
    text = " ".join(words)
    word_at = [n for n, word in enumerate(words) for _ in range(len(word) + 1)]
    restored, origins = restore_with_origins(text, masked.spans)
    sources: list[set[int]] = []
    inside = False
    for character, origin in zip(restored, origins, strict=True):
        if character.isspace():
            inside = False
            continue
        if not inside:
            sources.append(set())
        inside = True
        sources[-1].add(word_at[origin])
    merge = np.zeros((len(sources), len(words)), dtype=np.float32)
    for row, numbers in enumerate(sources):
        merge[row, sorted(numbers)] = 1 / len(numbers)
    return restored.split(), merge


def _pieces_to_characters(
    source: str, pieces: list[Piece], tokenizer: Tokenizer, masked: Masked | None
) -> Matrix:
    text = source if masked is None else masked.text
    origin = character_origins(text, tokenizer.normalise(text), simplify=tokenizer.simplify)
    spread = np.zeros((len(pieces), len(source)), dtype=np.float32)
    for row, piece in enumerate(pieces):
        covered = {origin[at] for at in range(piece.begin, piece.end)}
        characters = sorted(covered)
        if masked is not None:
            ranges = {masked.origins[at] for at in covered}
            characters = sorted({at for begin, end in ranges for at in range(begin, end)})
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
        if word:  # skip a lone space mark
            words.append(word)
            kept.append(group)
    matrix = np.zeros((len(words), len(ids)), dtype=np.float32)
    for row, group in enumerate(kept):
        counted = _counted(group, ids, tokenizer)
        matrix[row, counted] = 1 / len(counted)
    return words, matrix


def _counted(group: list[int], ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Return the pieces of a word without punctuation, unless all are punctuation.

    In "China." the full stop attends to 。, which does not align the word.
    """
    pieces = [tokenizer.piece(ids[at]).strip(SPACE_MARK) for at in group]
    spelt: list[bytearray] = []  # bytes of each piece, or of the character it belongs to
    for piece in pieces:
        byte = byte_of(piece)
        if byte is not None and byte & 0xC0 == 0x80 and spelt:  # continuation byte
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
