"""Fixtures: a corpus small enough to write by hand, and a model trained on it once."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from nmt.log import install_handler
from tests.helpers.command import Result, nmt_process

# On a busy machine an example takes its time. In CI hypothesis takes a profile of its own.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

SUBJECTS = {"我": "I", "他": "he", "她": "she", "我们": "we", "他们": "they", "老师": "the teacher",
            "学生": "the student", "医生": "the doctor"}  # fmt: skip
VERBS = {"爱": "love", "看见": "see", "喜欢": "like", "认识": "know", "找": "look for"}
OBJECTS = {"中国": "China", "音乐": "music", "猫": "cats", "书": "books", "茶": "tea",
           "北京": "Beijing", "米饭": "rice", "电影": "films", "大海": "the sea"}  # fmt: skip


def toy_pairs() -> list[tuple[str, str]]:
    """360 sentences of three words, each with one right translation."""
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


Nmt = Callable[..., Result]


@pytest.fixture(scope="session")
def nmt_command() -> Nmt:
    """Run ``nmt`` as its user would: another process, bytes in and out."""

    return nmt_process


def write_toy(folder: Path) -> Path:
    """Write the toy corpus and its configuration; returns the configuration's path."""
    rows = (f"{zh}\t{en}\n" for zh, en in toy_pairs())
    (folder / "toy.tsv").write_text("".join(rows), encoding="utf-8")
    config = folder / "toy.yaml"
    config.write_text(TOY_CONFIG.format(folder=folder), encoding="utf-8")
    return config


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A fresh toy configuration; its corpus stands beside it and is not prepared yet."""
    return write_toy(tmp_path)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the toy corpus. Shared: tests must not write into it."""
    from nmt.config.load import load_config
    from nmt.prepare.pipeline import prepare
    from nmt.train.loop import train

    config = load_config(write_toy(tmp_path_factory.mktemp("toy")), ["train.epochs=30"])
    prepare(config)
    run, _ = train(config, "cpu")
    return run.folder


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> None:
    """A suite started in the background ignores Ctrl-C and hang-up, and its programs with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _messages_on_stderr() -> None:
    """Show log messages on stderr, as the command line does."""
    install_handler()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Models this small are faster on one thread, above all on a busy machine."""
    torch.set_num_threads(1)
