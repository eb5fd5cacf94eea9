"""Options that several commands share, and the adapter from a dataclass to a Typer command."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from nmt.errors import NmtError

RUNS = Path("runs")
DECODING = "Decoding"  # heading of the less common options of the search

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="YAML configuration, see configs/.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key: --set train.epochs=5. Repeatable."
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N: --device cuda:1."),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Run directory or package; default: the newest finished run in runs/.",
    ),
]
Beam = Annotated[
    int | None,
    typer.Option("--beam", min=1, max=1000, metavar="N", help="Beam size: --beam 1 is greedy."),
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(
        "--length-penalty",
        min=0.0,
        max=5.0,
        metavar="X",
        help="Exponent of the length penalty: --length-penalty 1 if output is too short.",
        rich_help_panel=DECODING,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        metavar="N",
        help="Lines translated together: --batch-size 16 saves memory. Changes no translation.",
        rich_help_panel=DECODING,
    ),
]

Options = TypeVar("Options")


def takes(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Decorator: turn a function of one dataclass into a function of its fields.

    Typer reads the signature, so each option is declared once, as an annotated field.
    """
    hints = get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default if field.default_factory is MISSING else field.default_factory(),
            annotation=hints[field.name],
        )
        for field in fields(options)  # type: ignore[arg-type]
    ]

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(options(**values))

        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        command.__annotations__ = {name: hints[name] for name in command_names}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    command_names = [parameter.name for parameter in parameters]
    return decorate


def none_if_stdout(path: Path | None) -> Path | None:
    """Return None for ``-``, which is standard output."""
    return None if str(path) == "-" else path


def refuse_windows(command: str) -> None:
    """Raise on Windows, which lacks the file locks and signals that `command` needs."""
    if sys.platform == "win32":
        raise NmtError(f"nmt {command} runs on Linux and macOS", "on Windows in WSL")
