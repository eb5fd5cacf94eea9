"""The command line as such: help, usage errors, exit codes, start-up time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Nmt

GOLDEN = Path(__file__).parents[1] / "golden"
COMMANDS = ("", "prepare", "train", "translate", "evaluate", "align")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_pinned(command: str, nmt_command: Nmt) -> None:
    """Changed on purpose? ``python tests/golden/update.py`` writes the new texts."""
    result = nmt_command(*command.split(), "--help")
    assert result.code == 0
    assert result.err == ""
    assert result.out == (GOLDEN / f"help-{command or 'nmt'}.txt").read_text(encoding="utf-8")


def test_version(nmt_command: Nmt) -> None:
    import nmt

    assert nmt_command("--version").out == f"nmt {nmt.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: no such command 'trian'"),
        (["train"], "error: missing option '--config'"),
        (["translate", "--bem", "3"], "error: no such option: --bem"),
        (["translate", "--beam", "0", "x"], "error: invalid value for '--beam'"),
    ],
)
def test_usage_errors_have_the_house_form(
    arguments: list[str], message: str, nmt_command: Nmt
) -> None:
    result = nmt_command(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(message)
    assert "hint: " in result.err
    assert "Traceback" not in result.err


def test_without_a_command_there_is_help(nmt_command: Nmt) -> None:
    result = nmt_command()
    assert result.code == 2
    assert (result.out + result.err).startswith("Usage: ")


@pytest.mark.parametrize("command", ["prepare", "train"])
def test_windows_is_told_what_it_can_do(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.toy import nmt

    monkeypatch.setattr(sys, "platform", "win32")
    result = nmt(command, "--config", tmp_path / "c.yaml")
    assert result.code == 2
    assert f"error: nmt {command} runs on Linux and macOS\nhint: on Windows in WSL" in result.err


def test_help_is_utf8_whatever_the_locale() -> None:
    words = [sys.executable, "-m", "nmt", "translate", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(words, capture_output=True, env=environment)
    assert result.returncode == 0
    assert "我爱中国" in result.stdout.decode()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['nmt', '--help']\nfrom nmt import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'sacrebleu', 'sentencepiece'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_library_prints_nothing(toy_run: Path) -> None:
    code = (
        "import nmt\n"
        f"translator = nmt.Translator.load({str(toy_run)!r}, 'auto')\n"
        "assert translator.translate(['我爱中国。'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
