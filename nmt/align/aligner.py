"""A statistical word aligner over the pieces of the packed corpus: who translates whom.

Two hidden Markov models (Vogel, Ney & Tillmann 1996), one in each direction, learned
together by agreement (Liang, Taskar & Klein 2006) after IBM model 1 (Brown et al. 1993).
In the forward model every target piece is made by one source piece or by none; which one
depends on where the piece before it came from. The backward model is the same with the
sides swapped. Nothing is drawn by hand: the links come from the corpus alone.

It is the teacher of guided attention (Chen et al. 2016): see `Aligner.posteriors`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nmt.align.hmm import Floats, Ids, Mask
from nmt.align.lexicon import Lexicon, PairBatch, expect, pair_keys
from nmt.data.packed import PackedSet
from nmt.errors import NmtError
from nmt.io.write import write_whole
from nmt.symbols import BOS, EOS, PAD

logger = logging.getLogger(__name__)

FORMAT = 1
_AGAIN = "remove it: nmt train learns it again from the same corpus"


class Aligner:
    """Learned translations and jumps, and what follows from them for a pair.

    Attributes:
        lexicon: translation probabilities.
        jumps: how likely the next piece comes from d positions further on, from
            -JUMP_RANGE to JUMP_RANGE: along the source, then along the target,
            `[2, 2*range + 1]`; None for model 1 alone.
    """

    def __init__(self, lexicon: Lexicon, jumps: Floats | None) -> None:
        self.lexicon = lexicon
        self.jumps = jumps
        self._keys = lexicon.keys()

    @classmethod
    def learn(
        cls,
        corpus: PackedSet,
        *,
        pairs: int = 200_000,
        seed: int = 1,
        start: Aligner | None = None,
    ) -> Aligner:
        """Learn from a random part of a corpus; the same arguments give the same bytes.

        Args:
            corpus: packed ids.
            pairs: at most so many pairs are drawn, fewer if they are long.
            seed: of the sample.
            start: aligner to start from, of the same tokenizers; replaces model 1.

        Raises:
            NmtError: no pair is short enough to learn from.
        """
        from nmt.align.learn import Learner, draw  # needs torch, which takes a helper seconds

        learner = Learner(draw(corpus, pairs, seed))
        if start is not None:
            learner.start_from(start.lexicon, start.jumps)
        learner.run()
        return cls(learner.lexicon, learner.jumps)

    @classmethod
    def learn_and_save(
        cls, path: Path, corpus: PackedSet, seed: int, start: Aligner | None = None
    ) -> Aligner:
        """Learn from a corpus, save the result at `path`, and log the time taken."""
        began = time.monotonic()
        aligner = cls.learn(corpus, seed=seed, start=start)
        aligner.save(path)
        logger.info(
            f"word alignment learned from the training pairs: {time.monotonic() - began:.0f} s"
        )
        return aligner

    def posteriors(self, src: Ids, src_mask: Mask, trg: Ids, trg_mask: Mask) -> Floats:
        """How likely each target piece and each source piece translate one another.

        The geometric mean of what both directions believe, and no row above 1. What is
        missing to 1 is the belief that the piece has no counterpart. BOS, EOS and padding
        are never aligned: their rows and columns are 0.

        Args:
            src: `[batch, src_len]`.
            src_mask: True on real pieces, `[batch, src_len]`.
            trg: `[batch, trg_len]`.
            trg_mask: True on real pieces, `[batch, trg_len]`.

        Returns:
            `[batch, trg_len, src_len]`; row sums between 0 and 1.
        """
        forward, backward = self.directions(src, src_mask, trg, trg_mask)
        both = np.sqrt(forward * backward)
        joined: Floats = both / np.maximum(both.sum(axis=2, keepdims=True), 1)
        return joined

    def directions(
        self, src: Ids, src_mask: Mask, trg: Ids, trg_mask: Mask
    ) -> tuple[Floats, Floats]:
        """What each direction believes alone, both `[batch, trg_len, src_len]`.

        Rows of the first and columns of the second sum to 1 or less.
        """
        src_mask, trg_mask = src_mask & _aligned(src), trg_mask & _aligned(trg)
        # An id beyond those of training is as little known as the last one.
        src = np.minimum(src, len(self.lexicon.null_src) - 1)
        trg = np.minimum(trg, len(self.lexicon.null_trg) - 1)
        batch = PairBatch(src, trg, src_mask, trg_mask, self._slots(src, trg))
        forward, backward = (side.posteriors for side in expect(batch, self.lexicon, self.jumps))
        return forward.transpose(1, 0, 2), backward.transpose(1, 2, 0)

    def _slots(self, src: Ids, trg: Ids) -> NDArray[np.int32]:
        keys = pair_keys(src, trg, len(self.lexicon.null_trg))
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[found] == keys, found, 0).astype(np.int32)

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {
            "src": self.lexicon.src,
            "trg": self.lexicon.trg,
            "forward": self.lexicon.forward,
            "backward": self.lexicon.backward,
            "null_trg": self.lexicon.null_trg,
            "null_src": self.lexicon.null_src,
        }
        if self.jumps is not None:
            tensors["jumps"] = self.jumps
        head = {"format": FORMAT, "sha256": _digest(tensors)}
        # One entry only: safetensors writes several in no fixed order.
        write_whole(path, save(tensors, {"nmt": json.dumps(head)}))

    @classmethod
    def load(cls, path: Path) -> Aligner:
        """Read a file that `save` wrote.

        Raises:
            NmtError: missing, damaged, or of another format.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise NmtError(f"{path}: missing or damaged ({error})", _AGAIN) from error
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, path: str) -> Aligner:
        """Read the content of a file that `save` wrote; `path` is named in messages.

        Raises:
            NmtError: damaged, or of another format.
        """
        try:
            tensors = load(data)
            size = int.from_bytes(data[:8], "little")  # of the safetensors header
            metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
            head = json.loads(metadata.get("nmt", "{}"))
        except (ValueError, SafetensorError) as error:
            raise NmtError(f"{path}: missing or damaged ({error})", _AGAIN) from error
        if head.get("format") != FORMAT:
            raise NmtError(
                f"{path}: format {head.get('format')}, but this program reads {FORMAT}",
                _AGAIN,
            )
        if head.get("sha256") != _digest(tensors):
            raise NmtError(f"{path}: damaged: it does not have the checksum recorded", _AGAIN)
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise NmtError(f"{path}: contains non-finite values", _AGAIN)
        jumps = tensors.pop("jumps", None)
        return cls(Lexicon(**tensors), jumps)


def _digest(tensors: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


def _aligned(ids: Ids) -> Mask:
    found: Mask = (ids != PAD) & (ids != BOS) & (ids != EOS)
    return found
