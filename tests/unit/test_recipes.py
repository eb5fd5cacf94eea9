"""The configurations in configs/: valid, and short because the defaults are good."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nmt.config.load import load_config
from nmt.config.schema import ModelConfig, TrainConfig

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_needs_few_keys(path: Path) -> None:
    load_config(path)
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert len(tree["model"]) + len(tree["train"]) <= 13


def test_defaults_suit_a_corpus_of_medium_size() -> None:
    model, train = ModelConfig(), TrainConfig()
    assert (model.attention_query, model.layer_norm) == ("state+word", True)
    assert (train.ema, train.guided_alignment) == ("auto", 0.1)


def test_recipes_override_defaults_that_do_not_suit_them() -> None:
    configs = {path.stem: load_config(path) for path in RECIPES}
    assert not configs["open"].model.layer_norm
    assert configs["base"].train.guided_alignment == 0
    assert configs["quickstart"].train.ema == 0.998
