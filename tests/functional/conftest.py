"""`nmt` in this process, in an empty folder: fast enough for one run per mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.command import nmt
from tests.helpers.preparing import Run, sentences, write_config, write_tsv


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `nmt ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return nmt


@pytest.fixture
def corpus(run: Run) -> Run:
    """A folder with a good corpus `a.tsv` and its configuration `c.yaml`."""
    write_tsv(Path("a.tsv"), sentences())
    write_config("{source: tsv, path: a.tsv}")
    return run


@pytest.fixture
def model(toy_run: Path, tmp_path: Path) -> Path:
    """A copy of the toy run, which a test may change."""
    return Path(shutil.copytree(toy_run, tmp_path / "run"))
