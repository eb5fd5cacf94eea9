"""Word links between a sentence and its given translation, by forced decoding.

The user's tokens are joined to plain text, since that is what the network was trained
on, its pieces are decoded by force, and what it looked at is merged back to the tokens.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nmt.align import ALIGNER, Aligner
from nmt.data.batches import Align
from nmt.data.tokenizer import Tokenizer
from nmt.errors import NmtError
from nmt.run.directory import Run
from nmt.symbols import PAD
from nmt.translate.attention_map import character_origins, near_diagonal
from nmt.translate.forced import Forced, force
from nmt.translate.translator import Translator

Links = set[tuple[int, int]]
Matrix = NDArray[np.float64]
Method = Literal["attention", "occlusion"]
TokenPair = tuple[Sequence[str], Sequence[str]]
Linker = Callable[[Iterable[TokenPair]], tuple[Iterator[Links], str]]  # links, and how made

# How the Penn treebank writes brackets and quotes.
_TREEBANK = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}",
    "``": '"', "''": '"',
}  # fmt: skip
_SURE = 0.5  # an aligner's posterior from which two tokens are linked
_WINDOW = 32  # pairs decoded together; with occlusion each is many
_NO_SPACE_BEFORE = set(".,;:!?%)]}’”") | {"n't"}
_NO_SPACE_AFTER = set("([{$“‘#")


@dataclass(frozen=True)
class Joined:
    """Tokens put together to a plain sentence.

    Attributes:
        text: the sentence.
        owner: for each of its characters the number of its token, -1 for a space.
    """

    text: str
    owner: list[int]


def join_tokens(tokens: Sequence[str]) -> Joined:
    """Tokens to text as people write it: no space in Chinese or before punctuation."""
    text, owner = "", []
    before = ""
    for number, token in enumerate(tokens):
        shown = _TREEBANK.get(token, token)
        if before and _needs_space(before, shown):
            text += " "
            owner.append(-1)
        text += shown
        owner += [number] * len(shown)
        before = shown
    return Joined(text, owner)


def _needs_space(before: str, after: str) -> bool:
    wide = any(unicodedata.east_asian_width(c) in "WF" for c in (before[-1], after[0]))
    clitic = after.startswith(("'", "’")) and len(after) > 1
    return not (wide or clitic or after in _NO_SPACE_BEFORE or before in _NO_SPACE_AFTER)


def piece_tokens(joined: Joined, tokenizer: Tokenizer, tokens: int) -> Matrix:
    """Which share of each piece belongs to each token, `[pieces, tokens]`."""
    origin = character_origins(
        joined.text, tokenizer.normalise(joined.text), simplify=tokenizer.simplify
    )
    pieces = tokenizer.pieces(joined.text)
    shares = np.zeros((len(pieces), tokens))
    for row, piece in enumerate(pieces):
        for at in range(piece.begin, piece.end):
            owner = joined.owner[origin[at]]
            if owner >= 0:
                shares[row, owner] += 1
    totals = shares.sum(axis=1, keepdims=True)
    found: Matrix = np.divide(shares, totals, out=np.zeros_like(shares), where=totals > 0)
    return found


def stream_links(
    translator: Translator,
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]],
    *,
    method: Method,
    batch_size: int = 64,
) -> Iterator[Links]:
    """Word links of each pair, in order; see `token_weights` and `best_links`."""
    weights = token_weights(translator, pairs, method=method, batch_size=batch_size)
    yield from map(best_links, weights)


def best_links(weights: Matrix) -> Links:
    """Each target token is linked to the source token with the largest weight.

    The weights are first multiplied by `near_diagonal`.

    Args:
        weights: `[target tokens, source tokens]`; a token without any gets no link.
    """
    if not weights.any():
        return set()
    scored = weights * near_diagonal(*weights.shape)
    best = scored.argmax(axis=1)
    return {(int(at), j) for j, at in enumerate(best) if scored[j, at] > 0}


def lexical_links(
    align: Align, src: Tokenizer, trg: Tokenizer, pairs: Iterable[TokenPair]
) -> Iterator[Links]:
    """Word links of a statistical aligner: no network is asked.

    Two tokens are linked where the posterior of some pair of their pieces is 0.5
    or more, so a token may have several links or none.

    Args:
        align: `Aligner.posteriors` of one learned from ids of the tokenizers.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        pairs: source and target tokens.
    """
    for tokens, translated in pairs:
        source, target = join_tokens(tokens), join_tokens(translated)
        src_ids, trg_ids = np.array([src.encode(source.text)]), np.array([trg.encode(target.text)])
        if not src_ids.size or not trg_ids.size:
            yield set()
            continue
        posteriors = align(
            src_ids, np.ones_like(src_ids, bool), trg_ids, np.ones_like(trg_ids, bool)
        )[0]
        from_token = piece_tokens(source, src, len(tokens)) > 0
        to_token = piece_tokens(target, trg, len(translated)) > 0
        yield {
            (int(i), int(j))
            for row, column in np.argwhere(posteriors >= _SURE)
            for j in np.flatnonzero(to_token[row])
            for i in np.flatnonzero(from_token[column])
        }


def run_links(run: Run, pairs: Iterable[TokenPair]) -> Iterator[Links]:
    """Word links of the aligner that taught a run's attention; see `lexical_links`.

    Raises:
        NmtError: the run has none, or a damaged one.
    """
    path = run.folder / ALIGNER
    if not path.exists():
        raise NmtError(
            f"{path}: missing; this run was trained without a word aligner",
            "use --method occlusion, or train with train.guided_alignment above 0",
        )
    return lexical_links(Aligner.load(path).posteriors, run.src, run.trg, pairs)


def pharaoh(links: Iterable[tuple[int, int]], *, one_based: bool) -> str:
    """Links as ``i-j``, source first, sorted."""
    base = 1 if one_based else 0
    return " ".join(f"{i + base}-{j + base}" for i, j in sorted(links))


def token_weights(
    translator: Translator,
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]],
    *,
    method: Method,
    batch_size: int = 64,
) -> Iterator[Matrix]:
    """How much each target token has to do with each source token.

    Args:
        translator: the network and its tokenizers.
        pairs: source and target tokens.
        method: ``attention``: the mean over a target token's pieces of the weights of
            the step that predicts each (the state before it asks), summed over the
            pieces of a source token. ``occlusion``: how much the log-probability of a
            target token falls, in nats, when the vectors of the source token's pieces
            are set to zero, as word dropout does in training (Li et al. 2019 call it
            prediction difference). Rises count as zero.
        batch_size: sentences decoded side by side.

    Yields:
        `[target tokens, source tokens]` for each pair; all zero if a side has no pieces.
    """
    iterator = iter(pairs)
    while window := list(itertools.islice(iterator, _WINDOW)):
        jobs = [_Job(translator, src, trg) for src, trg in window]
        asked = [job.pairs(method) for job in jobs]
        every = list(itertools.chain.from_iterable(asked))
        looks = method == "attention"
        answers = iter(force(translator.model, every, translator.device, batch_size, looks=looks))
        for job, own in zip(jobs, asked, strict=True):
            yield job.weights(method, list(itertools.islice(answers, len(own))))


class _Job:
    """One sentence pair: what to decode for it, and what the answers mean."""

    def __init__(self, translator: Translator, src: Sequence[str], trg: Sequence[str]) -> None:
        self.shape = (len(trg), len(src))
        source, target = join_tokens(src), join_tokens(trg)
        self.src_ids = translator.src.encode(source.text)
        self.trg_ids = translator.trg.encode(target.text)
        self.src_share = piece_tokens(source, translator.src, len(src))
        self.trg_share = piece_tokens(target, translator.trg, len(trg))

    def pairs(self, method: Method) -> list[tuple[list[int], list[int]]]:
        if not self.src_ids or not self.trg_ids:
            return []
        sources = [self.src_ids]
        if method == "occlusion":
            # PAD's vector is zero, and the mask is made from lengths, not from ids.
            sources += [
                [PAD if share > 0 else id_ for id_, share in zip(self.src_ids, column, strict=True)]
                for column in self.src_share.T
            ]
        return [(ids, self.trg_ids) for ids in sources]

    def weights(self, method: Method, answers: list[Forced]) -> Matrix:
        if not answers:
            return np.zeros(self.shape)
        if method == "attention":
            looked = answers[0].attention
            assert looked is not None  # it was asked for
            attention = looked[:-1].double().numpy()
            totals = np.maximum(self.trg_share.sum(axis=0, keepdims=True), 1e-9)
            mean: Matrix = (self.trg_share / totals).T @ attention @ self.src_share
            return mean
        whole, *without = (one.token_log_probs[:-1].double().numpy() for one in answers)
        falls = np.maximum(whole - np.stack(without), 0.0)  # [source tokens, target pieces]
        summed: Matrix = self.trg_share.T @ falls.T
        return summed
