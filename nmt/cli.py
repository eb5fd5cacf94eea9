"""The command line: commands, help layout, exceptions to exit codes.

Exit codes: 0 done, 1 a bug, 2 a bad request, 3 a quality gate failed, 130 interrupted.
stdout carries results only; everything else goes to stderr.

No torch is imported at module level here or in any ``command.py``: ``nmt --help`` is immediate.
"""

from __future__ import annotations

import difflib
import errno
import io
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from nmt.align.command import align
from nmt.errors import NmtError
from nmt.evaluate.command import evaluate
from nmt.init.command import init
from nmt.log import install_handler
from nmt.prepare.command import prepare
from nmt.run.command import models, package
from nmt.serve.command import serve
from nmt.signals import interrupting_on_signals
from nmt.train.command import train
from nmt.translate.command import translate
from nmt.version import __version__

# Errors of a path that is too long or not accessible; a missing file has its own messages.
_INACCESSIBLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)

# What users of other programs try.
_OPTION_HINTS = {
    "--resume": "nmt train resumes by itself: run the same command again",
    "--continue": "nmt train resumes by itself: run the same command again",
    "--to": "the direction is always Chinese to English",
    "--from": "the direction is always Chinese to English",
    "--file": "nmt translate --input FILE",
}
_FIRST = ("Arguments", "Options")  # headings of the help, before those of option groups


class Command(TyperCommand):
    """A command whose help lists the options under plain headings."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, common ones first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                heading = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(heading, []).append(record)
        common = [sections.pop(heading, []) for heading in ("Arguments", "Options")]
        for heading, records in (
            ("Arguments", common[0]),
            ("Options", common[1]),
            *sections.items(),
        ):
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class Group(TyperGroup):
    """The group of commands; its help shows the whole first sentence of each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands with their summaries."""
        names = self.list_commands(ctx)
        summaries = [self.commands[name].get_short_help_str(limit=200) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(list(zip(names, summaries, strict=True)))


app = typer.Typer(
    name="nmt",
    cls=Group,
    epilog="Start: nmt init TEXT, or nmt init --recipe quickstart",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (init, prepare, train, translate, serve, evaluate, align, package, models):
    app.command(cls=Command)(command)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"nmt {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train, use and evaluate a Chinese to English translator on your own text."""


def main() -> None:
    """Run the command line and exit."""
    if sys.stderr is None:  # closed from the start; messages may not go to the results
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Chinese, whatever the locale is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    run(app, "nmt")


def run(program: typer.Typer, name: str | None = None) -> NoReturn:
    """Run a Typer program and exit; print a message for a bad request."""
    install_handler()
    try:
        with interrupting_on_signals():
            code = program(standalone_mode=False, prog_name=name)
    except NmtError as error:
        _fail(error.message, error.hint)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        if error.errno not in _INACCESSIBLE or error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", None)
    except Exception as error:
        # The base class of Typer's usage errors is not public.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            sys.exit(2)
        _fail(_usage_message(error), _usage_hint(error))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, hint: str | None) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    sys.exit(2)


def _usage_message(error: Exception) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    message = message.replace("Value error, ", "")  # some Typers prefix it to a wrong choice
    message = message.partition(" (Possible option")[0]  # the hint names the nearest
    return message[:1].lower() + message[1:].rstrip(".")


def _usage_hint(error: Exception) -> str | None:
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", "")
    if type(error).__name__ != "NoSuchOption":
        return f"{context.command_path} --help" if context is not None else None
    if option in _OPTION_HINTS:
        return _OPTION_HINTS[option]
    if context is not None and any(p.name == "set_" for p in context.command.params):
        from nmt.config.load import find_keys

        keys = find_keys(option.strip("-").replace("-", "_"))
        if keys:
            return f"it is a key of the configuration: --set {keys[0]}=VALUE"
    close = difflib.get_close_matches(option, getattr(error, "possibilities", None) or [], n=1)
    help_hint = f"{context.command_path} --help" if context is not None else None
    return f"did you mean {close[0]}?" if close else help_hint
