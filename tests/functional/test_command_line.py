"""The command line as such: help, usage errors, exit codes, start-up time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from nmt import cli
from tests.helpers.command import Nmt

ROOT = Path(__file__).parents[2]
COMMANDS = ("init", "prepare", "train", "translate", "evaluate", "align")


def words(text: str) -> str:
    """Return the text without the line breaks and indentation of its layout."""
    return re.sub(r"-\s+", "-", " ".join(text.split()))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_option_with_its_text(command: str, nmt_command: Nmt) -> None:
    result = nmt_command(command, "--help")
    assert (result.code, result.err) == (0, "")
    app: Any = typer.main.get_command(cli.app)
    shown = words(result.out)
    for parameter in app.commands[command].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in shown
        assert words(parameter.help) in shown


def test_help_shows_whole_summaries(nmt_command: Nmt) -> None:
    result = nmt_command("--help")
    assert (result.code, result.err) == (0, "")
    assert "..." not in result.out.split("Commands:")[1]


def test_help_of_translate_begins_with_the_common_options(nmt_command: Nmt) -> None:
    out = nmt_command("translate", "--help").out
    common = out.split("\nOptions:\n")[1].split("\n\n")[0]
    assert re.findall(r"^  (--[\w-]+)", common, re.MULTILINE) == [
        "--input", "--output", "--model", "--beam", "--show-attention", "--json", "--int8",
        "--device",
    ]  # fmt: skip


def test_the_reference_pages_are_up_to_date() -> None:
    script = ROOT / "scripts" / "generate_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_shell_completion_is_available() -> None:
    environment = {**os.environ, "_NMT_COMPLETE": "complete_bash", "COMP_WORDS": "nmt tr",
                   "COMP_CWORD": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "nmt"], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["train", "translate"], done.stderr


def test_version(nmt_command: Nmt) -> None:
    import nmt

    assert nmt_command("--version").out == f"nmt {nmt.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: no such command 'trian'"),
        (["train"], "error: missing option '--config'"),
        (["translate", "--bem", "3"], "error: no such option: --bem"),
        (["train", "--resume"], "error: no such option: --resume\nhint: nmt train resumes by"),
        (
            ["train", "--epochs", "3"],
            "error: no such option: --epochs\nhint: it is a key of the "
            "configuration: --set train.epochs=VALUE",
        ),
        (["translate", "--to", "en"], "error: no such option: --to\nhint: the direction is "),
        (["translate", "--bem", "3"], "error: no such option: --bem\nhint: did you mean --beam?"),
        (["translate", "--beam", "0", "x"], "error: invalid value for '--beam'"),
    ],
)
def test_usage_errors_have_a_message_and_a_hint(
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
def test_windows_is_refused_with_a_hint(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.helpers.command import nmt

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
