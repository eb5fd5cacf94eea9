"""Check that sentences of given files do not occur in the training data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nmt.data.packed import PackedSet
from nmt.data.tokenizer import load_both
from nmt.errors import NmtError
from nmt.io.read import COMPRESSED, read_lines
from nmt.text.keys import Keys, is_member, sentence_key
from nmt.text.normalise import normalise

_BLOCK = 20_000  # pairs decoded at once
_EXAMPLES = 3
_UNSUPPORTED = {".csv", ".json", ".jsonl", ".tmx", ".po", ".xlf", ".xliff"}


def file_keys(path: Path, *, simplify: bool) -> Keys:
    """Return the keys of the sentences of a text file, and of every column of a table.

    A sentence may belong to either side, so it is hashed with both normalisations.

    Raises:
        NmtError: the format is not supported.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSED]
    if suffixes and suffixes[-1] in _UNSUPPORTED:
        raise NmtError(
            f"{path}: {suffixes[-1]} is not supported here",
            "convert it to text with one sentence a line, or to a table with tabs",
        )
    keys: set[int] = set()
    for line in read_lines(path):
        for text in line.split("\t"):
            if text.strip():
                keys.add(sentence_key(normalise(text, simplify=False)))
                keys.add(sentence_key(normalise(text, simplify=simplify)))
    return np.array(sorted(keys), dtype=np.uint64)


def files_keys(paths: Iterable[Path], *, simplify: bool) -> dict[Path, Keys]:
    """Return `file_keys` of several files."""
    return {path: file_keys(path, simplify=simplify) for path in paths}


def refuse_leakage(folder: Path, keys: dict[Path, Keys], *, simplify: bool) -> None:
    """Refuse a packed corpus whose training pairs have a sentence of the given files.

    The training text is decoded from its pieces.

    Raises:
        NmtError: with the number of such pairs by file, and examples.
    """
    if not keys:
        return
    packed = PackedSet.open(folder, "train")
    counts = dict.fromkeys(keys, 0)
    examples: list[str] = []
    tokenizers = load_both(folder, simplify=simplify)
    for start in range(0, len(packed), _BLOCK):
        stop = min(start + _BLOCK, len(packed))
        texts = [
            [tokenizer.decode(side[i].tolist()) for i in range(start, stop)]
            for side, tokenizer in zip((packed.src, packed.trg), tokenizers, strict=True)
        ]
        src, trg = (np.array([sentence_key(t) for t in side], np.uint64) for side in texts)
        for path, members in keys.items():
            positions = np.flatnonzero(is_member(src, members) | is_member(trg, members))
            counts[path] += len(positions)
            new = positions[: _EXAMPLES - len(examples)]
            examples += [f"{texts[0][i]} | {texts[1][i]}" for i in new]
    if examples:
        leaked = ", ".join(
            f"{count} share a sentence with {p}" for p, count in counts.items() if count
        )
        raise NmtError(
            f"of {len(packed)} training pairs {leaked}; for example {'; '.join(examples)}",
            "list the file under data.exclude to remove such pairs",
        )
