"""The toy corpus of `toy_run`: three-word sentences."""

from __future__ import annotations

import itertools
from pathlib import Path

SUBJECTS = {"我": "I", "他": "he", "她": "she", "我们": "we", "他们": "they", "老师": "the teacher",
            "学生": "the student", "医生": "the doctor"}  # fmt: skip
VERBS = {"爱": "love", "看见": "see", "喜欢": "like", "认识": "know", "找": "look for"}
OBJECTS = {"中国": "China", "音乐": "music", "猫": "cats", "书": "books", "茶": "tea",
           "北京": "Beijing", "米饭": "rice", "电影": "films", "大海": "the sea"}  # fmt: skip


def toy_pairs() -> list[tuple[str, str]]:
    """Return 360 three-word sentences, each with one correct translation."""
    pairs = []
    for (s, subject), (v, verb), (o, object_) in itertools.product(
        SUBJECTS.items(), VERBS.items(), OBJECTS.items()
    ):
        third = subject not in ("I", "we", "they")
        english = f"{subject} {verb}{'s' if third and ' ' not in verb else ''} {object_}."
        pairs.append((f"{s}{v}{o}。", english[0].upper() + english[1:]))
    return pairs


TOY_CONFIG = """\
run: {folder}/run
data:
  dir: {folder}/corpus
  sources:
    - source: tsv
      path: {folder}/toy.tsv
  dev: 12
  test: 12
  src_vocab: 330
  trg_vocab: 330
model:
  embedding_dim: 24
  encoder_hidden: 24
  decoder_hidden: 32
  attention_hidden: 24
  dropout: 0.0
  attention_query: state
  layer_norm: false
train:
  epochs: 4
  batch_tokens: 256
  learning_rate: 0.01
  warmup: 10
  ema: 0.0
  guided_alignment: 0.0
  validate_sentences: 12
  log_samples: 1
search:
  beam: 3
"""


def write_toy(folder: Path) -> Path:
    """Write the toy text and its configuration, and return the path of the configuration."""
    rows = (f"{zh}\t{en}\n" for zh, en in toy_pairs())
    (folder / "toy.tsv").write_text("".join(rows), encoding="utf-8")
    config = folder / "toy.yaml"
    config.write_text(TOY_CONFIG.format(folder=folder), encoding="utf-8")
    return config
