"""Small networks with random weights, and a batch for them."""

from __future__ import annotations

from typing import Any, Literal

import torch

from nmt.config.schema import ModelConfig
from nmt.data.batches import Batch
from nmt.model import Seq2Seq
from nmt.symbols import BOS, EOS, PAD

# state+word: with every option that changes the network.
Kind = Literal["additive", "none", "state+word"]
KINDS: tuple[Kind, ...] = ("additive", "none", "state+word")
PLAIN = {"attention_query": "state", "source_bridge": False, "layer_norm": False}
OPTIONS: dict[Kind, dict[str, Any]] = {
    "additive": PLAIN,
    "none": {**PLAIN, "attention": "none"},
    "state+word": {"attention_query": "state+word", "source_bridge": True, "layer_norm": True},
}


def network(
    kind: Kind = "additive",
    *,
    seed: int = 0,
    src_vocab: int = 23,
    trg_vocab: int = 19,
    std: float | None = None,
    **config: Any,
) -> Seq2Seq:
    """Return a network in training mode.

    Args:
        kind: which options.
        seed: of torch's random state.
        src_vocab: source pieces.
        trg_vocab: target pieces.
        std: draw all weights with this standard deviation instead of initialising them; large
            weights make sharp choices.
        config: further keys of `ModelConfig`.
    """
    sizes = {
        "embedding_dim": 8, "encoder_hidden": 7, "decoder_hidden": 9, "attention_hidden": 6,
        "dropout": 0.0, "word_dropout": 0.0,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = Seq2Seq(src_vocab, trg_vocab, ModelConfig(**{**sizes, **OPTIONS[kind], **config}))
    if std is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=std)
    return model


SOURCES = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15]]
TARGETS = [[4, 5], [6, 7, 8, 9], [10]]


def batch_of(sources: list[list[int]], targets: list[list[int]]) -> Batch:
    """Return a padded batch of ids."""

    def pad(rows: list[list[int]]) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    src = pad(sources)
    return Batch(
        src, src != PAD,
        pad([[BOS, *t] for t in targets]), pad([[*t, EOS] for t in targets]),
        sum(len(t) + 1 for t in targets),
    )  # fmt: skip
