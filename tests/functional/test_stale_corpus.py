"""A corpus is refused if it was prepared with other settings or from other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt.config.load import load_config
from nmt.config.schema import DataConfig
from nmt.data.manifest import check_prepared, load_manifest
from nmt.errors import NmtError
from tests.helpers.preparing import Run


def data(*overrides: str) -> DataConfig:
    return load_config(Path("c.yaml"), list(overrides)).data


def refused(config: DataConfig) -> NmtError:
    with pytest.raises(NmtError) as caught:
        check_prepared(config, load_manifest(config.dir))
    return caught.value


def test_a_stale_corpus_is_refused_with_the_keys(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    check_prepared(data(), load_manifest(Path("data/t")))
    error = refused(data("data.clean.max_ratio=5", "data.sources.0.weight=2"))
    assert error.message == (
        "data/t: was prepared with data.sources.0.weight=1.0, the configuration says 2.0; "
        "data.clean.max_ratio=9.0, the configuration says 5.0"
    )
    assert error.hint == ("run nmt prepare with the same --config and --set, or put the key back")


def test_changed_source_files_are_refused_and_missing_ones_are_not(corpus: Run) -> None:
    assert corpus("prepare", "--config", "c.yaml").code == 0
    with Path("a.tsv").open("a", encoding="utf-8") as file:
        file.write("新的一句。\tA new one.\n")
    assert refused(data()).message == "data/t: a.tsv changed after nmt prepare"
    Path("a.tsv").unlink()
    check_prepared(data(), load_manifest(Path("data/t")))
