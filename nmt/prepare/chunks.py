"""Per-chunk functions of the cleaning and packing passes, run in worker processes.

The result for a chunk depends only on that chunk, and chunks are returned in order, so the
output is byte-identical for any number of workers.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import regex
from numpy.typing import NDArray

from nmt.config.schema import CleanConfig
from nmt.data.tokenizer import load_both
from nmt.prepare import clean
from nmt.prepare.drops import Drops
from nmt.prepare.pair import Pair
from nmt.prepare.statistics import Statistics
from nmt.text.keys import sentence_key, text_key
from nmt.text.normalise import near_duplicate_key, normalise
from nmt.text.spans import compile_patterns, mask_pair

CHUNK = 4000  # pairs per task of a worker

T = TypeVar("T")

_FINAL_MARKS = "。.!?"  # after NFKC, where all full-width marks but 。 are half-width


@dataclass
class Cleaned:
    """A chunk after the rules for single pairs.

    Attributes:
        lines: the kept pairs, one `pack_line` each.
        keys: of the kept pairs: source sentence, target sentence, pair, near-duplicate;
            `[4, kept]`.
        read: pairs in the chunk.
        drops: the pairs that were not kept.
        statistics: of the kept pairs.
    """

    lines: bytes
    keys: NDArray[np.uint64]
    read: int
    drops: Drops
    statistics: Statistics


def clean_chunk(
    config: CleanConfig,
    simplify: bool,
    drop_final_punctuation: float,
    chunk: list[tuple[str, str]],
    *,
    protect: tuple[str, ...] = (),
) -> Cleaned:
    """Apply the cleaning rules; normalise and hash the pairs that pass.

    Args:
        config: the rules and their limits.
        simplify: whether to convert the source side to Simplified.
        drop_final_punctuation: share of sources whose final punctuation is removed.
        chunk: raw pairs.
        protect: further patterns of protected spans.
    """
    patterns = _patterns(protect)
    rules = _rules(config)
    drops, kept, lines = Drops(), [], []
    keys: list[tuple[int, int, int, int]] = []
    for item in chunk:
        pair = Pair(*item)
        for name, is_bad in rules:
            if is_bad(pair):
                drops.drop(name, pair)
                break
        else:
            src, trg = normalise(pair.src, simplify=simplify), normalise(pair.trg, simplify=False)
            if not src or not trg:  # only invisible characters
                drops.drop("empty side", pair)
                continue
            kept.append(pair)
            key = text_key(f"{src}\t{trg}")
            near_key = text_key(f"{near_duplicate_key(src)}\t{near_duplicate_key(trg)}")
            keys.append((sentence_key(src), sentence_key(trg), key, near_key))
            if key % 1000 < drop_final_punctuation * 1000:
                src = src.rstrip(_FINAL_MARKS) or src
            lines.append(pack_line(pair, *mask_pair(src, trg, patterns)))
    statistics = Statistics()
    statistics.count_pairs(kept)
    return Cleaned(
        b"".join(lines),
        np.array(keys, dtype=np.uint64).reshape(-1, 4).T.copy(),
        len(chunk),
        drops,
        statistics,
    )


@functools.lru_cache(maxsize=1)
def _patterns(protect: tuple[str, ...]) -> list[regex.Pattern[str]]:
    return compile_patterns(protect)


@functools.lru_cache(maxsize=1)
def _rules(config: CleanConfig) -> list[tuple[str, clean.Rule]]:
    return list(clean.pair_rules(config).items())


def pack_line(pair: Pair, src: str, trg: str) -> bytes:
    """Return a scratch line: both normalised sides, and the raw pair as JSON if it differs.

    Normalised text has no tab and no line end; raw text may.
    """
    raw = "" if pair == (src, trg) else json.dumps(pair, ensure_ascii=False)
    return f"{src}\t{trg}\t{raw}\n".encode()


def raw_pair(line: bytes) -> Pair:
    """Return the raw pair of a scratch line."""
    src, trg, raw = line.decode().rstrip("\n").split("\t")
    return Pair(*json.loads(raw)) if raw else Pair(src, trg)


def normalised_pair(line: bytes) -> tuple[str, str]:
    """Return the normalised pair of a scratch line."""
    src, trg, _ = line.decode().split("\t")
    return src, trg


@dataclass
class Encoded:
    """A tokenised chunk.

    Attributes:
        ids: of each side, concatenated.
        lengths: number of ids of each sentence, by side.
        drops: pairs with too many or too few pieces; a repeated pair counts once per repeat.
        statistics: of the pieces.
    """

    ids: tuple[NDArray[np.int32], NDArray[np.int32]]
    lengths: tuple[NDArray[np.int64], NDArray[np.int64]]
    drops: Drops
    statistics: Statistics


def encode_chunk(
    folder: Path, simplify: bool, limits: tuple[int, int], chunk: tuple[list[bytes], list[int]]
) -> Encoded:
    """Tokenise scratch lines.

    Args:
        folder: folder with ``src.model`` and ``trg.model``.
        simplify: as of the source tokenizer.
        limits: minimum and maximum number of pieces of a side.
        chunk: the lines, and how often each is repeated.
    """
    tokenizers = _tokenizers(folder, simplify=simplify)
    lines, copies = chunk
    sides: list[list[str]] = [list(side) for side in zip(*map(normalised_pair, lines), strict=True)]
    encoded = [t.encode_normalised(side) for t, side in zip(tokenizers, sides, strict=True)]
    drops = Drops()
    kept: tuple[list[list[int]], list[list[int]]] = ([], [])
    min_pieces, max_pieces = limits
    for line, times, src, trg in zip(lines, copies, *encoded, strict=True):
        if max(len(src), len(trg)) > max_pieces:
            drops.drop(f"over {max_pieces} pieces", raw_pair(line), times)
        elif min(len(src), len(trg)) < min_pieces:
            drops.drop(f"under {min_pieces} pieces", raw_pair(line), times)
        else:
            kept[0].extend([src] * times)
            kept[1].extend([trg] * times)
    statistics = Statistics()
    for side, tokenizer, sentences in zip(("src", "trg"), tokenizers, kept, strict=True):
        statistics.count_pieces(side, tokenizer, sentences)
    return Encoded(
        (_flat(kept[0]), _flat(kept[1])),
        (_lengths(kept[0]), _lengths(kept[1])),
        drops,
        statistics,
    )


_tokenizers = functools.lru_cache(maxsize=1)(load_both)


def _flat(sentences: list[list[int]]) -> NDArray[np.int32]:
    return np.fromiter(itertools.chain.from_iterable(sentences), np.int32)


def _lengths(sentences: list[list[int]]) -> NDArray[np.int64]:
    return np.fromiter(map(len, sentences), np.int64, len(sentences))


def chunked(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Split a stream into lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
