"""Network sizes for benchmarks."""

from __future__ import annotations

SHAPES: dict[str, dict[str, int]] = {
    "small": {
        "embedding_dim": 256,
        "encoder_hidden": 256,
        "decoder_hidden": 512,
        "attention_hidden": 512,
    },
    "base": {
        "embedding_dim": 512,
        "encoder_hidden": 512,
        "decoder_hidden": 1024,
        "attention_hidden": 1024,
    },
    "large": {
        "embedding_dim": 620,
        "encoder_hidden": 1000,
        "decoder_hidden": 1000,
        "attention_hidden": 1000,
    },
}
# Vocabulary sizes, both sides.
PIECES = {"small": 4_000, "base": 16_000, "large": 30_000}
