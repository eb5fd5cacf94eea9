"""The commands. Here alone an error becomes a message and an exit code.

Exit codes: 0 done, 1 a bug of ours, 2 the request is at fault, 3 a quality gate failed,
130 interrupted. stdout carries results only; everything else goes to stderr.

torch is imported inside the commands: `nmt --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, get_args

import typer

import nmt
from nmt.align.command import align
from nmt.device import starting
from nmt.errors import NmtError
from nmt.log import leave

if TYPE_CHECKING:
    from nmt.config.schema import Config
    from nmt.translate.translator import Translator

RUNS = Path("runs")
# What a path can't be looked at for; one that is not there has messages of its own.
_UNREACHABLE = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)

app = typer.Typer(
    name="nmt",
    epilog="Start: nmt prepare --config configs/quickstart.yaml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="YAML configuration, see configs/.")
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045 (Typer reads this on Python 3.10)
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key: --set train.epochs=5. Repeatable."
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N: --device cuda:1."),
]
ModelOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--model",
        metavar="RUN",
        help="Run directory; the newest finished one in runs/ if left out.",
    ),
]
BeamOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--beam", min=1, max=1000, help="Hypotheses followed at once: --beam 1 is greedy."
    ),
]
AlphaOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        "--length-penalty",
        min=0.0,
        max=5.0,
        help="Length penalty: --length-penalty 1 if output is too short.",
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(
        "--batch-size",
        min=1,
        help="Lines searched together: --batch-size 16 saves memory. Changes no translation.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nmt {nmt.__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train a Chinese to English translator on your own text, use it, look into it, gate it."""


@app.command()
def prepare(
    config: ConfigOption,
    set_: SetOption = None,
    check_leak: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--check-leak",
            metavar="FILE",
            help="Refuse training pairs that share a sentence with this text. Repeatable.",
        ),
    ] = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--workers", min=1, help="Processes; all cores if left out."),
    ] = None,
) -> None:
    """Clean, split and pack a parallel corpus; train its tokenizers.

    Run again with nothing changed, it does no work. What was dropped, and why, is in
    report.html beside the packed corpus.

    \b
      nmt prepare --config configs/quickstart.yaml
      nmt prepare --config configs/tatoeba.yaml --set data.sources.0.path=my.tsv.gz
    """
    _refuse_windows("prepare")
    from nmt.prepare.pipeline import prepare as run_prepare
    from nmt.prepare.report import summary

    loaded = _load_config(config, set_)
    manifest, worked = run_prepare(loaded, workers, check_leak or [])
    _print(summary(manifest), err=True)
    state = "prepared" if worked else "unchanged, nothing to do"
    _print(f"report: {loaded.data.dir / 'report.html'}", err=True)
    _print(f"{loaded.data.dir}: {state}", err=True)


@app.command()
def train(
    config: ConfigOption,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also write RUN/tensorboard (extra tensorboard)."),
    ] = False,
) -> None:
    """Train on a prepared corpus, or go on with a training that was stopped.

    Ctrl-C saves and stops; the same command goes on as if it had not been stopped.
    Under torchrun all workers train one network together.

    \b
      nmt train --config configs/quickstart.yaml
      nmt train --config configs/quickstart.yaml --set model.attention=none --set run=runs/fixed
      torchrun --nproc-per-node 2 -m nmt train --config configs/quickstart.yaml
    """
    _refuse_windows("train")
    from nmt.train.loop import train as run_train

    _, progress = run_train(_load_config(config, set_), device, tensorboard=tensorboard)
    if progress.stopped_by is None:
        raise typer.Exit(130)


@app.command()
def translate(
    texts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[TEXT]...", help="Chinese sentences; stdin if there are none."),
    ] = None,
    input_: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--input",
            metavar="FILE",
            help="Translate the lines of a file: --input zh.txt, zh.txt.gz too.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write there instead of to stdout: --output en.txt, whole or not at all.",
        ),
    ] = None,
    model: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--model",
            metavar="RUN",
            help="Run directory; the newest finished one in runs/ if left out. Given again: an "
            "ensemble of runs on one corpus, --model runs/a --model runs/b.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--threads",
            min=1,
            max=1024,
            help="CPU threads: --threads 1 leaves the other cores alone; all if left out.",
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Multiply in 8-bit integers: faster, CPU only.")
    ] = False,
    batch_size: BatchOption = 64,
    beam: BeamOption = None,
    alpha: AlphaOption = None,
    beta: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--coverage-penalty",
            min=0.0,
            max=5.0,
            help="Coverage penalty: --coverage-penalty 0.2 if words go missing.",
        ),
    ] = None,
    no_repeat: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--no-repeat-ngram",
            min=0,
            max=20,
            metavar="N",
            help="No N pieces twice in a line: --no-repeat-ngram 3 ends loops.",
        ),
    ] = None,
    max_ratio: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--max-ratio",
            min=0.01,
            max=100.0,
            help="Most output pieces per source piece, ten more at any length: --max-ratio 1.5.",
        ),
    ] = None,
    n_best: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--n-best",
            min=1,
            max=1000,
            metavar="N",
            help="The N best, as lines `number ||| text ||| score`: --n-best 3.",
        ),
    ] = None,
    json_: Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON object a line: source, translation, score, log_prob, pieces, "
            "alignment, flags.",
        ),
    ] = False,
    align: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--align",
            metavar="FORMAT",
            help="Behind ` ||| ` what each word was made from. pharaoh: 0-0 1-0 2-1, character "
            "of the source - word, from 0; soft: JSON with all weights, null of a line far too "
            "long for them.",
        ),
    ] = None,
    flags: Annotated[
        bool,
        typer.Option(
            "--quality-flags",
            help="Name suspect lines on stderr: loops, source nobody looked at, numbers that "
            "differ, odd lengths, unknown characters. Hints, not verdicts.",
        ),
    ] = False,
    show_attention: Annotated[
        bool,
        typer.Option("--show-attention", help="Draw what each word attended to, on stderr."),
    ] = False,
    attention_html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--attention-html",
            metavar="FILE",
            help="The same as a page to explore: --attention-html look.html.",
        ),
    ] = None,
    attention_svg: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--attention-svg",
            metavar="FILE",
            help="The same drawn by matplotlib: --attention-svg look.svg.",
        ),
    ] = None,
    attention_png: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--attention-png",
            metavar="FILE",
            help="That in pixels: --attention-png look.png. Needs a Chinese font.",
        ),
    ] = None,
    errors: Annotated[
        str,
        typer.Option(
            "--encoding-errors",
            metavar="HOW",
            help="Input that is not UTF-8: strict stops and names the line, replace goes on "
            "with U+FFFD: --encoding-errors replace.",
        ),
    ] = "strict",
) -> None:
    """Translate: one line out for each line in, in order.

    A line longer than half of those of dev is split at its sentence ends and joined again.

    \b
      nmt translate "我爱中国"
      nmt translate --show-attention "我爱中国"
      nmt translate --input zh.txt --output en.txt --model runs/tatoeba
      cat zh.txt | nmt translate --int8 > en.txt
      nmt translate --json --input zh.txt | jq 'select(.flags != [])'
      nmt translate --align pharaoh "我爱中国"      # I love China. ||| 0-0 1-1 2-2 3-2
      nmt translate --attention-html look.html --input zh.txt --output en.txt
    """
    from nmt.translate.request import AlignFormat, Errors, Request, check

    request = Request(
        texts=texts or [], input=input_, output=_unless_stdout(output),
        errors=_one_of("--encoding-errors", errors, get_args(Errors)),
        batch_size=batch_size, n_best=n_best, json=json_,
        align=None if align is None else _one_of("--align", align, get_args(AlignFormat)),
        flags=flags, show_attention=show_attention, html=attention_html,
        svg=attention_svg, png=attention_png,
    )  # fmt: skip
    check(request)
    given = {"beam": beam, "length_penalty": alpha, "coverage_penalty": beta,
             "no_repeat_ngram": no_repeat, "max_ratio": max_ratio}  # fmt: skip
    with starting():
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        from nmt.translate.command import run

        translator = _loaded(model, device, given, int8)
    run(translator, request)


@app.command()
def evaluate(
    systems: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(
            metavar="SYSTEM", help="Run directories or files of hypotheses, the first a base."
        ),
    ] = None,
    model: ModelOption = None,
    src: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--src", metavar="FILE", help="Chinese lines, instead of the run's test set."),
    ] = None,
    ref: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--ref", metavar="FILE", help="English references; again for further ones."),
    ] = None,
    hypotheses: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--hypotheses", metavar="FILE", help="Score these lines; no model is needed."),
    ] = None,
    metric: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--metric", metavar="NAME", help="Also chrf++ or ter. Repeatable."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Test the systems against the first of them.")
    ] = False,
    by_length: Annotated[
        bool, typer.Option("--by-length", help="Also score buckets of source length.")
    ] = False,
    buckets: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--buckets", metavar="N,N,…", help="Longest source of each, in characters."),
    ] = None,
    chart: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--chart", metavar="FILE", help="Draw --by-length there, .svg or .png."),
    ] = None,
    min_bleu: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--min-bleu", min=0.0, max=100.0, help="Exit with 3 if BLEU is lower."),
    ] = None,
    min_chrf: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--min-chrf", min=0.0, max=100.0, help="Exit with 3 if chrF is lower."),
    ] = None,
    baseline: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--baseline",
            metavar="REPORT",
            help="Exit with 3 if BLEU is significantly lower than in this report.json.",
        ),
    ] = None,
    max_drop: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--max-drop",
            min=0.0,
            max=100.0,
            help="BLEU it may be below --baseline; else 0.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            metavar="DIR",
            help="For report.json and hypotheses.txt; RUN/evaluation, else evaluation.",
        ),
    ] = None,
    markdown: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--markdown", metavar="FILE", help="Write the report as Markdown too."),
    ] = None,
    junit: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--junit", metavar="FILE", help="Write the gate's checks as JUnit XML."),
    ] = None,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", metavar="FILE", help="Write a page: curves, scores, sentences."),
    ] = None,
    device: DeviceOption = "auto",
    beam: BeamOption = None,
    alpha: AlphaOption = None,
    batch_size: BatchOption = 64,
) -> None:
    """Score a run on its test set, or any file of hypotheses; a gate for CI.

    Exit code 3 if a floor or the baseline is missed, 2 for a mistaken request.

    \b
      nmt evaluate
      nmt evaluate --model runs/quickstart --min-bleu 5
      nmt evaluate --src news.zh --ref news.en --ref news.second.en
      nmt evaluate --hypotheses other-system.en --ref news.en
      nmt evaluate --model runs/new --baseline report.json --max-drop 1
      nmt evaluate --compare runs/old runs/new
      nmt evaluate --by-length runs/additive runs/none --chart lengths.svg
    """
    from nmt.evaluate import command
    from nmt.evaluate.inputs import Decoding
    from nmt.io.write import refuse_folder

    decoding = Decoding(device, beam, alpha, batch_size)
    for path in (markdown, junit, html, chart):
        refuse_folder(path)
    paths = _systems(systems, model, hypotheses, ref)
    request = command.Request(
        systems=paths, src=src, refs=list(ref or []), decoding=decoding,
        metrics=list(metric or []), compare=compare, by_length=by_length, buckets=buckets,
        chart=chart, min_bleu=min_bleu, min_chrf=min_chrf, baseline=baseline,
        max_drop=max_drop, output=output or _evaluation_folder(paths), markdown=markdown,
        junit=junit, html=html,
    )  # fmt: skip
    evaluated = command.evaluate(request)
    with contextlib.ExitStack() as last:
        last.callback(evaluated.write)  # the verdict is told first, and the reports come anyhow
        _print(evaluated.answer)
        for check in evaluated.checks:
            _print(f"gate: {check.message}", err=True)
    if not all(check.passed for check in evaluated.checks):
        raise typer.Exit(3)


app.command()(align)


def _unless_stdout(path: Path | None) -> Path | None:
    return None if str(path) == "-" else path


def _refuse_windows(command: str) -> None:
    if sys.platform == "win32":
        raise NmtError(f"nmt {command} runs on Linux and macOS", "on Windows in WSL")


def _load_config(path: Path, overrides: list[str] | None) -> Config:
    from nmt.config.load import load_config

    return load_config(path, overrides)


def _loaded(
    models: list[Path] | None,
    device: str,
    given: Mapping[str, float | None],
    int8: bool = False,
) -> Translator:
    """The translator of a run or several; search settings given replace the run's own."""
    from nmt.run.directory import newest_run
    from nmt.translate.translator import Translator

    translator = Translator.load(models or [newest_run(RUNS)], device, int8=int8)
    translator.change_search(given)
    return translator


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise NmtError(f"{option} {value}: unknown", f"one of: {', '.join(allowed)}")
    return value


def _systems(
    systems: list[Path] | None,
    model: Path | None,
    hypotheses: Path | None,
    ref: list[Path] | None,
) -> list[Path]:
    """What to evaluate, however it was named."""
    from nmt.io.read import open_bytes
    from nmt.run.directory import Run, newest_run

    if hypotheses is not None and model is not None:
        raise NmtError("--hypotheses takes no --model: nothing is translated")
    if hypotheses is not None and not ref:
        raise NmtError("--hypotheses needs --ref, the references to score against")
    if hypotheses is not None and (hypotheses.is_dir() or not hypotheses.exists()):
        with open_bytes(hypotheses):
            pass  # for its message; - is there, whatever it is called
    if model is not None and not model.is_dir():
        Run.open(model)  # for its message
    named = [path for path in (model, hypotheses) if path is not None]
    if systems and named:
        option = "--model" if model is not None else "--hypotheses"
        raise NmtError(f"both SYSTEM and {option} were given", "give one of them")
    return systems or named or [newest_run(RUNS)]


def _evaluation_folder(systems: list[Path]) -> Path:
    """Inside the run if there is one; else here."""
    if len(systems) == 1 and systems[0].is_dir():
        return systems[0] / "evaluation"
    return Path("evaluation")


def main() -> None:
    """Run the command line and exit."""
    if sys.stderr is None:  # closed from the start; messages may not go where results do
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Chinese, whatever the locale is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    run(app)


def run(program: typer.Typer) -> NoReturn:
    """Run a program of ours and exit, with a message if it is used wrongly."""
    try:
        code = program(standalone_mode=False)
    except NmtError as error:
        _fail(error.message, error.hint)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        if error.errno not in _UNREACHABLE or error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", None)
    except Exception as error:
        # Typer's usage errors share a base class that it does not export.
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message(), err=True)
            sys.exit(2)
        _fail(_usage_message(error), _usage_hint(error))
    sys.exit(code if isinstance(code, int) else 0)


def _print(text: str, *, err: bool = False) -> None:
    """Write to stdout, or to stderr; a reader that went away (head, less) has read enough.

    What the command exits with does not depend on that, nor on what becomes of messages.
    """
    try:
        typer.echo(text, err=err)
    except OSError as error:
        leave(sys.stderr if err else sys.stdout)
        if not err and not isinstance(error, BrokenPipeError):
            reason = error.strerror
            raise NmtError(f"standard output: cannot be written ({reason})") from error


def _fail(message: str, hint: str | None) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    sys.exit(2)


def _usage_message(error: Exception) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    return message[:1].lower() + message[1:].rstrip(".")


def _usage_hint(error: Exception) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else None
