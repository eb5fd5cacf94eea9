"""`nmt` in this process, in an empty folder: fast enough for one run per mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nmt import cli
from tests.helpers.preparing import Run, sentences, write_config, write_tsv
from tests.helpers.toy import Result


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `nmt ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["nmt", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, out, err)

    return run


@pytest.fixture
def corpus(run: Run) -> Run:
    """A folder with a good corpus `a.tsv` and its configuration `c.yaml`."""
    write_tsv(Path("a.tsv"), sentences())
    write_config("{source: tsv, path: a.tsv}")
    return run
