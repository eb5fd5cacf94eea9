"""Keys of the source sentences of train, to detect a system scored on its training data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nmt.text.keys import Keys, is_member, sentence_key
from nmt.text.normalise import normalise

TRAINING_KEYS = "train.src.keys.npy"


def write_training_keys(folder: Path, keys: Keys) -> None:
    """Write the sorted, distinct keys of the training sources, 8 bytes each."""
    np.save(folder / TRAINING_KEYS, np.unique(keys))


def count_trained_on(folder: Path, sources: Iterable[str], *, simplify: bool) -> int:
    """Return how many sentences occur in the training data of a corpus or a run."""
    path = folder / TRAINING_KEYS
    if not path.is_file():
        return 0
    trained = np.load(path, mmap_mode="r", allow_pickle=False)
    keys = [sentence_key(normalise(text, simplify=simplify)) for text in sources if text.strip()]
    return int(np.count_nonzero(is_member(np.array(keys, np.uint64), trained)))
