"""Named sizes of networks, for benchmarks."""

from __future__ import annotations

SHAPES: dict[str, dict[str, int]] = {
    "small": {"embedding": 256, "encoder": 256, "decoder": 512, "attention_size": 512},
    "base": {"embedding": 512, "encoder": 512, "decoder": 1024, "attention_size": 1024},
    "large": {"embedding": 620, "encoder": 1000, "decoder": 1000, "attention_size": 1000},
}
# Vocabularies that belong to them, on both sides.
PIECES = {"small": 4_000, "base": 16_000, "large": 30_000}
