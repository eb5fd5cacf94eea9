"""Word links of sentence pairs in tokens, from the statistical aligner.

The user's tokens are joined to plain text, because the tokenizers were trained on plain text.
The links between pieces are then mapped back to the tokens.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nmt.data.tokenizer import Tokenizer
from nmt.text.normalise import character_origins

Links = set[tuple[int, int]]  # (source token, target token), zero-based
# Source ids, their mask, target ids, their mask; returns `[batch, trg_len, src_len]`.
AlignBatch = Callable[..., NDArray[np.float32]]
TokenPair = tuple[Sequence[str], Sequence[str]]  # source tokens, target tokens

# Brackets and quotes as the Penn treebank writes them.
_TREEBANK = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}",
    "``": '"', "''": '"',
}  # fmt: skip
_MIN_POSTERIOR = 0.5
_NO_SPACE_BEFORE = set(".,;:!?%)]}’”") | {"n't"}
_NO_SPACE_AFTER = set("([{$“‘#")


@dataclass(frozen=True)
class JoinedTokens:
    """A sentence joined from tokens.

    Attributes:
        text: the sentence.
        token_indices: the token of each character of `text`; -1 for a space between tokens.
    """

    text: str
    token_indices: list[int]


def join_tokens(tokens: Sequence[str]) -> JoinedTokens:
    """Join tokens to text in the usual spacing: none in Chinese or before punctuation."""
    text = ""
    token_indices: list[int] = []
    previous = ""
    for index, token in enumerate(tokens):
        token = _TREEBANK.get(token, token)
        if previous and _needs_space(previous, token):
            text += " "
            token_indices.append(-1)
        text += token
        token_indices += [index] * len(token)
        previous = token
    return JoinedTokens(text, token_indices)


def _needs_space(left: str, right: str) -> bool:
    is_wide = any(unicodedata.east_asian_width(c) in "WF" for c in (left[-1], right[0]))
    is_clitic = right.startswith(("'", "’")) and len(right) > 1
    return not (is_wide or is_clitic or right in _NO_SPACE_BEFORE or left in _NO_SPACE_AFTER)


def tokens_of_pieces(joined: JoinedTokens, tokenizer: Tokenizer) -> list[list[int]]:
    """Return, for each piece of the joined text, the indices of the tokens it overlaps."""
    origins = character_origins(
        joined.text, tokenizer.normalise(joined.text), simplify=tokenizer.simplify
    )
    return [
        sorted(
            {joined.token_indices[origins[at]] for at in range(piece.begin, piece.end)} - {-1}
        )
        for piece in tokenizer.pieces(joined.text)
    ]  # fmt: skip


def link_tokens(
    align: AlignBatch, src: Tokenizer, trg: Tokenizer, pairs: Iterable[TokenPair]
) -> Iterator[Links]:
    """Yield the word links of each pair.

    Two tokens are linked if the posterior of any pair of their pieces is at least 0.5. A token
    may have several links or none.

    Args:
        align: `Aligner.posteriors` of an aligner learned from ids of the two tokenizers.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        pairs: source and target tokens.
    """
    for src_tokens, trg_tokens in pairs:
        src_joined, trg_joined = join_tokens(src_tokens), join_tokens(trg_tokens)
        src_ids = np.array([src.encode(src_joined.text)])
        trg_ids = np.array([trg.encode(trg_joined.text)])
        if not src_ids.size or not trg_ids.size:
            yield set()
            continue
        posteriors: NDArray[np.float32] = align(
            src_ids, np.ones_like(src_ids, bool), trg_ids, np.ones_like(trg_ids, bool)
        )[0]
        src_of_piece = tokens_of_pieces(src_joined, src)
        trg_of_piece = tokens_of_pieces(trg_joined, trg)
        yield {
            (i, j)
            for trg_piece, src_piece in np.argwhere(posteriors >= _MIN_POSTERIOR)
            for j in trg_of_piece[trg_piece]
            for i in src_of_piece[src_piece]
        }


def pharaoh(links: Iterable[tuple[int, int]], *, one_based: bool = False) -> str:
    """Format links as sorted ``i-j`` separated by spaces, source first."""
    base = 1 if one_based else 0
    return " ".join(f"{i + base}-{j + base}" for i, j in sorted(links))
