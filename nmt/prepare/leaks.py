"""Training sentences that stand in a test file as well."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nmt.data.packed import PackedSet
from nmt.data.tokenizer import load_both
from nmt.errors import NmtError
from nmt.io.read import COMPRESSED, read_lines
from nmt.prepare.keys import Keys, member, sentence_key
from nmt.text.normalise import normalise

_BLOCK = 20_000
_SHOWN = 3
_OTHER_FORMATS = {".csv", ".json", ".jsonl", ".tmx", ".po", ".xlf", ".xliff"}


def file_keys(path: Path, *, simplify: bool) -> Keys:
    """Keys of the sentences of a text file, and of every column of a table, once each.

    A sentence may be of either side, so it is normalised in both ways.

    Raises:
        NmtError: of a format whose sentences are not found that way.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix not in COMPRESSED]
    if suffixes and suffixes[-1] in _OTHER_FORMATS:
        raise NmtError(
            f"{path}: sentences of {suffixes[-1]} are not looked for",
            "write them out, one a line or in columns with tabs between",
        )
    found: set[int] = set()
    for line in read_lines(path):
        for text in line.split("\t"):
            if text.strip():
                found.add(sentence_key(normalise(text, simplify=False)))
                found.add(sentence_key(normalise(text, simplify=simplify)))
    return np.array(sorted(found), dtype=np.uint64)


def files_keys(paths: Iterable[Path], *, simplify: bool) -> dict[Path, Keys]:
    """The same of several files."""
    return {path: file_keys(path, simplify=simplify) for path in paths}


def refuse(folder: Path, keys: dict[Path, Keys], *, simplify: bool) -> None:
    """Look for the sentences of some files among the packed training pairs of `folder`.

    The pieces spell the text, so the packed corpus is all that is needed.

    Raises:
        NmtError: there are some; says how many, and shows the first.
    """
    if not keys:
        return
    packed = PackedSet.open(folder, "train")
    counts = dict.fromkeys(keys, 0)
    shown: list[str] = []
    tokenizers = load_both(folder, simplify=simplify)
    for start in range(0, len(packed), _BLOCK):
        stop = min(start + _BLOCK, len(packed))
        texts = [
            [tokenizer.decode(side[i].tolist()) for i in range(start, stop)]
            for side, tokenizer in zip((packed.src, packed.trg), tokenizers, strict=True)
        ]
        ours = [np.array([sentence_key(t) for t in side], dtype=np.uint64) for side in texts]
        for path, few in keys.items():
            meets = np.flatnonzero(member(ours[0], few) | member(ours[1], few))
            counts[path] += len(meets)
            shown += [f"{texts[0][i]} | {texts[1][i]}" for i in meets[: _SHOWN - len(shown)]]
    if shown:
        met = ", ".join(f"{count} meet {path}" for path, count in counts.items() if count)
        raise NmtError(
            f"of {len(packed)} training pairs {met}; for example {'; '.join(shown)}",
            "name the file under data.exclude to have such pairs removed",
        )
