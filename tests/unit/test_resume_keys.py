"""The keys that may change between parts of a training."""

from typing import Any

import pytest

from nmt.config.schema import Config
from nmt.train.resume import SAFE_KEYS, _differences


@pytest.mark.parametrize("key", sorted(SAFE_KEYS))
def test_safe_keys_are_keys(key: str) -> None:
    section, name = key.split(".")
    assert name in Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]


def test_differences_name_every_key_with_both_values() -> None:
    old: dict[str, Any] = {"run": "a", "data": {"dir": "x"}, "train": {"seed": 1, "ema": 0.0}}
    new: dict[str, Any] = {"run": "b", "data": {"dir": "y"}, "train": {"seed": 2, "ema": 0.0}}
    assert _differences(old, new) == {"train.seed": (1, 2)}
    assert _differences(old, old) == {}


def test_a_key_that_one_side_lacks_differs() -> None:
    assert _differences({"train": {}}, {"train": {"ema": 0.5}}) == {"train.ema": (None, 0.5)}
