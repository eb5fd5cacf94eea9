"""Choose settings for the size of a corpus and write them as a commented configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from nmt.config.load import build_config
from nmt.config.schema import Config
from nmt.config.sources import Source


@dataclass(frozen=True)
class Corpus:
    """Parallel text: its sources, the number of pairs, characters and words per pair."""

    sources: Sequence[Source]
    pairs: int
    characters: float
    words: float


@dataclass(frozen=True)
class _Preset:
    """Settings for corpora of up to `max_pairs`; docs/results/recipes.md has the measurements."""

    max_pairs: float
    embedding_dim: int
    encoder_hidden: int
    decoder_hidden: int
    attention_hidden: int
    learning_rate: float
    warmup: int
    epochs: int
    validate_every: int


_PRESETS = (
    _Preset(15_000, 128, 128, 256, 256, 3e-3, 100, 60, 5),
    _Preset(50_000, 256, 256, 512, 256, 2e-3, 200, 32, 4),
    _Preset(200_000, 256, 256, 512, 256, 2e-3, 400, 16, 2),
    _Preset(1_000_000, 256, 256, 512, 256, 2e-3, 400, 8, 1),
    _Preset(float("inf"), 512, 512, 1024, 1024, 1e-3, 1000, 10, 1),
)


def make_config(corpus: Corpus, name: str) -> Config:
    """Return the configuration for a corpus; `name` names its folder and its run."""
    preset = next(preset for preset in _PRESETS if corpus.pairs <= preset.max_pairs)
    held_out = max(1, min(2000, corpus.pairs // 20))
    tree = {
        "run": f"runs/{name}",
        "data": {
            "dir": f"data/{name}",
            "sources": [
                source.model_dump(mode="json", exclude_defaults=True) for source in corpus.sources
            ],
            "dev": held_out,
            "test": held_out,
            "drop_final_punctuation": 0.3,
        },
        "model": {
            "embedding_dim": preset.embedding_dim,
            "encoder_hidden": preset.encoder_hidden,
            "decoder_hidden": preset.decoder_hidden,
            "attention_hidden": preset.attention_hidden,
        },
        "train": {
            "learning_rate": preset.learning_rate,
            "warmup": preset.warmup,
            "epochs": preset.epochs,
            "validate_every": preset.validate_every,
        },
    }
    return build_config(tree, "nmt init")


def render(config: Config, corpus: Corpus, path: Path, time: str) -> str:
    """Return the configuration as YAML with comments."""
    data, model, train = config.data, config.model, config.train
    sources = "\n".join(
        "    - "
        + yaml.safe_dump(
            source.model_dump(mode="json", exclude_defaults=True),
            default_flow_style=True, sort_keys=False, allow_unicode=True, width=1000,
        ).strip()
        for source in data.sources
    )  # fmt: skip
    return f"""\
# Written by nmt init for {corpus.pairs:,} pairs ({corpus.characters:.0f} characters and \
{corpus.words:.0f} words per pair).
#
#   nmt prepare  --config {path}
#   nmt train    --config {path}
#   nmt translate --model {config.run} "我爱中国"
#
# Training: {time}.
# All keys and defaults: docs/reference/configuration.md.
run: {config.run}

data:
  dir: {data.dir}
  sources:
{sources}
  dev: {data.dev} # pairs held out for validation
  test: {data.test} # pairs held out for nmt evaluate
  drop_final_punctuation: {data.drop_final_punctuation} # also translate text without a full stop
  # src_vocab, trg_vocab: set by the number of pairs

model: # sizes for this number of pairs; more text carries a larger model
  embedding_dim: {model.embedding_dim}
  encoder_hidden: {model.encoder_hidden}
  decoder_hidden: {model.decoder_hidden}
  attention_hidden: {model.attention_hidden}
  # dropout: set by the number of pairs

train:
  learning_rate: {train.learning_rate}
  warmup: {train.warmup}
  epochs: {train.epochs} # at most; training stops after 10 validations without a better dev BLEU
  validate_every: {train.validate_every:g} # epochs
  # max_minutes: 60 # stop in time, with a finished model; add schedule_by: minutes
  # batch_tokens: set by the number of pairs
"""
