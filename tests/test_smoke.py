"""Prepare, train, translate, evaluate on a toy corpus, in a few seconds."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.command import nmt
from tests.helpers.toy import write_config


def test_from_a_corpus_to_a_score(tmp_path: Path) -> None:
    config = write_config(tmp_path, train={"epochs": 4})
    for command in ("prepare", "train"):
        result = nmt(command, "--config", config)
        assert result.code == 0, result.err
    result = nmt("translate", "--model", tmp_path / "run", "我今天吃苹果。", "他们明天买书。")
    assert (result.code, result.out.count("\n")) == (0, 2), result.err
    result = nmt("evaluate", tmp_path / "run")
    assert result.code == 0, result.err
    assert result.out.startswith("BLEU ")


def test_default_settings_train_the_model_without_attention(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        model={"attention": "none", "attention_query": "state+word", "layer_norm": True},
        train={"epochs": 1, "ema": 0.999, "guided_alignment": 0.1},
    )
    assert nmt("prepare", "--config", config).code == 0
    result = nmt("train", "--config", config)
    assert result.code == 0, result.err
