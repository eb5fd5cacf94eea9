"""docs/how-to/own-corpus.md agrees with the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from nmt.config.load import build_config
from nmt.config.schema import CleanConfig
from nmt.prepare.pipeline import auto_vocab

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "own-corpus.md").read_text(encoding="utf-8")


def test_the_documented_sources_are_valid() -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    tree = yaml.safe_load(block[1])
    config = build_config(tree, "docs/how-to/own-corpus.md")
    kinds = {source.source for source in config.data.sources}
    assert kinds == {"tsv", "csv", "jsonl", "parallel", "tmx", "po", "xliff", "sgm"}


@pytest.mark.parametrize("key", CleanConfig.model_fields)
def test_every_cleaning_rule_is_documented_with_its_default(key: str) -> None:
    row = next(line for line in PAGE.splitlines() if f"`{key}`" in line and line.startswith("|"))
    default = CleanConfig.model_fields[key].default
    shown = str(default).lower() if isinstance(default, bool) else f"{default:g}".strip() if (
        isinstance(default, float)
    ) else str(default)  # fmt: skip
    assert shown in row.split("|")[2]


SIZES = [
    (int(a.replace(",", "")), (int(b.replace(",", "")), int(c.replace(",", ""))))
    for a, b, c in re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
]


def test_its_vocabulary_sizes_are_found() -> None:
    assert len(SIZES) == 4


@pytest.mark.parametrize(("pairs", "sizes"), SIZES)
def test_its_vocabulary_sizes(pairs: int, sizes: tuple[int, int]) -> None:
    assert auto_vocab(pairs) == sizes
    assert auto_vocab(pairs + 1) > sizes
