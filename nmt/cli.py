"""The commands. Here alone an error becomes a message and an exit code.

Exit codes: 0 done, 1 a bug of ours, 2 the request is at fault, 3 a quality gate failed,
130 interrupted. stdout carries results only; everything else goes to stderr.

torch is imported inside the commands: `nmt --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

import nmt
from nmt.errors import NmtError

if TYPE_CHECKING:
    from nmt.config import Config, SearchConfig
    from nmt.evaluate.metrics import Score
    from nmt.translate.translator import Translation, Translator

RUNS = Path("runs")

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
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")
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
    typer.Option("--beam", min=1, max=1000, help="Hypotheses followed at once; 1 is greedy."),
]
AlphaOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--alpha", min=0.0, max=5.0, help="Length penalty; more gives longer output."),
]
BatchOption = Annotated[
    int,
    typer.Option("--batch-size", min=1, help="Lines searched together; changes no translation."),
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
    from nmt.prepare.pipeline import prepare as run_prepare
    from nmt.prepare.report import summary

    loaded = _load_config(config, set_)
    manifest, worked = run_prepare(loaded, workers, check_leak or [])
    typer.echo(summary(manifest), err=True)
    state = "prepared" if worked else "unchanged, nothing to do"
    typer.echo(f"report: {loaded.data.dir / 'report.html'}", err=True)
    typer.echo(f"{loaded.data.dir}: {state}", err=True)


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
        typer.Option("--input", metavar="FILE", help="Translate the lines of a file."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", metavar="FILE", help="Write there instead of to stdout."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    beam: BeamOption = None,
    alpha: AlphaOption = None,
    batch_size: BatchOption = 64,
    show_attention: Annotated[
        bool,
        typer.Option("--show-attention", help="Draw what each word attended to, on stderr."),
    ] = False,
) -> None:
    """Translate: one line out for each line in, in order.

    \b
      nmt translate "我爱中国"
      nmt translate --show-attention "我爱中国"
      nmt translate --input zh.txt --output en.txt --model runs/tatoeba
      cat zh.txt | nmt translate > en.txt
    """
    if texts and input_ is not None:
        raise NmtError("both TEXT and --input were given", "give one of them")
    translator = _translator(model, device, beam, alpha)
    lines = _lines_to_translate(texts, input_)
    typed_in = not texts and input_ is None and sys.stdin.isatty()
    if typed_in:
        typer.echo("one sentence a line, Ctrl-D to end", err=True)
    with _output(output) as write:
        stream = (
            (translator.translate([line])[0] for line in lines)  # answer each line at once
            if typed_in
            else translator.stream(lines, batch_size)
        )
        for translation in stream:
            write(translation.text + "\n")
            _note_parts(translation)
            if show_attention:
                _show_attention(translator, translation)


@app.command()
def evaluate(
    model: ModelOption = None,
    src: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--src", metavar="FILE", help="Chinese lines, instead of the run's test set."),
    ] = None,
    ref: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--ref", metavar="FILE", help="English references for --src or --hypotheses."),
    ] = None,
    hypotheses: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--hypotheses", metavar="FILE", help="Score these lines; no model is needed."),
    ] = None,
    min_bleu: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--min-bleu", min=0.0, max=100.0, help="Exit with 3 if BLEU is lower."),
    ] = None,
    min_chrf: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--min-chrf", min=0.0, max=100.0, help="Exit with 3 if chrF is lower."),
    ] = None,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", metavar="DIR", help="For report.json and hypotheses.txt; RUN/evaluation."
        ),
    ] = None,
    device: DeviceOption = "auto",
    beam: BeamOption = None,
    alpha: AlphaOption = None,
    batch_size: BatchOption = 64,
) -> None:
    """Score a run on its test set, or any file of hypotheses; a gate for CI.

    \b
      nmt evaluate
      nmt evaluate --model runs/quickstart --min-bleu 5
      nmt evaluate --src news.zh --ref news.en
      nmt evaluate --hypotheses other-system.en --ref news.en
    """
    from nmt.evaluate import gate
    from nmt.evaluate import report as reports
    from nmt.evaluate.metrics import score

    if hypotheses is not None:
        texts, details, folder = _given_hypotheses(hypotheses, ref, src, model)
    else:
        texts, details, folder = _translated(model, src, ref, device, beam, alpha, batch_size)
    scores = score(texts["hypotheses"], texts["reference"])
    _print_scores(scores, len(texts["reference"]))
    folder = output if output is not None else folder
    if folder is not None:
        report = reports.make_report(scores, texts, details)
        reports.write_report(folder, report, texts["hypotheses"])
        typer.echo(f"report: {folder / 'report.json'}", err=True)
    failed = gate.failures(scores, {"BLEU": min_bleu, "chrF2": min_chrf})
    for message in failed:
        typer.echo(f"gate: {message}", err=True)
    if failed:
        raise typer.Exit(3)


def _load_config(path: Path, overrides: list[str] | None) -> Config:
    from nmt.config import load_config

    return load_config(path, overrides)


def _translator(
    model: Path | None, device: str, beam: int | None, alpha: float | None
) -> Translator:
    from nmt.checkpoint import newest_run
    from nmt.translate.translator import Translator

    translator = Translator.load(model if model is not None else newest_run(RUNS), device)
    translator.search = _with(translator.search, beam, alpha)
    return translator


def _with(search: SearchConfig, beam: int | None, alpha: float | None) -> SearchConfig:
    given = {"beam": beam, "alpha": alpha}
    return search.model_copy(update={k: v for k, v in given.items() if v is not None})


def _lines_to_translate(texts: list[str] | None, file: Path | None) -> Iterator[str]:
    from nmt.text import decode_line, read_lines

    if texts:
        # An argument is one line, whatever it holds.
        return iter(text.replace("\n", " ") for text in texts)
    if file is not None:
        return read_lines(file)
    return (
        decode_line(raw, "standard input", number)
        for number, raw in enumerate(sys.stdin.buffer, start=1)
    )


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[Callable[[str], object]]:
    """A function that writes text to a file, or to stdout line by line."""
    from nmt.text import replacing

    if path is None:
        out = sys.stdout.buffer

        def write(text: str) -> None:
            out.write(text.encode())
            out.flush()

        yield write
    else:
        with replacing(path) as file:
            yield lambda text: file.write(text.encode())


def _note_parts(translation: Translation) -> None:
    if len(translation.parts) > 1:
        typer.echo(
            f"note: a line of {len(translation.source):,} characters was translated in "
            f"{len(translation.parts)} parts",
            err=True,
        )


def _show_attention(translator: Translator, translation: Translation) -> None:
    from nmt.translate.views import grid

    columns = shutil.get_terminal_size().columns
    for alignment in translator.alignments(translation):
        typer.echo(grid(alignment, columns), err=True)


def _given_hypotheses(
    path: Path, ref: Path | None, src: Path | None, model: Path | None
) -> tuple[Mapping[str, list[str]], dict[str, object], Path | None]:
    from nmt.evaluate import report as reports

    if ref is None:
        raise NmtError("--hypotheses needs --ref, the references to score against")
    if model is not None or src is not None:
        raise NmtError("--hypotheses takes no --model and no --src: nothing is translated")
    hypotheses, references = reports.read_texts(path), reports.read_texts(ref)
    named = {str(path): hypotheses, str(ref): references}
    reports.check_same_length(named)
    for name, lines in named.items():
        reports.check_is_raw(name, lines)
    return {"hypotheses": hypotheses, "reference": references}, {"hypotheses": str(path)}, None


def _translated(
    model: Path | None,
    src: Path | None,
    ref: Path | None,
    device: str,
    beam: int | None,
    alpha: float | None,
    batch_size: int,
) -> tuple[Mapping[str, list[str]], dict[str, object], Path | None]:
    from nmt.checkpoint import Run, newest_run
    from nmt.evaluate import report as reports

    if (src is None) != (ref is None):
        raise NmtError("--src and --ref go together: source lines and their references")
    folder = model if model is not None else newest_run(RUNS)
    run = Run.open(folder)
    if src is not None and ref is not None:
        sources, references = reports.read_texts(src), reports.read_texts(ref)
        named = {str(src): sources, str(ref): references}
    else:
        sources, references = run.text("test", "src"), run.text("test", "trg")
        named = {"test.src.txt": sources, "test.trg.txt": references}
    reports.check_same_length(named)
    for name, lines in named.items():
        reports.check_is_raw(name, lines)
    translator = _translator(folder, device, beam, alpha)
    texts = {
        "source": sources,
        "reference": references,
        "hypotheses": reports.translate_all(translator, sources, batch_size),
    }
    details: dict[str, object] = {
        "model": str(folder),
        "update": run.best().update,
        "texts": list(named),
        "search": translator.search.model_dump(),
    }
    return texts, details, folder / "evaluation"


def _print_scores(scores: list[Score], segments: int) -> None:
    for one in scores:
        typer.echo(f"{one.name} {one.value:.2f}  ({segments} segments; {one.signature})")


def main() -> None:
    """Run the command line and exit."""
    try:
        code = app(standalone_mode=False)
    except NmtError as error:
        _fail(error.message, error.hint)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (head, less): nothing is wrong. Python would complain
        # once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        # Typer's usage errors share a base class that it does not export.
        if not hasattr(error, "format_message"):
            raise
        _fail(_usage_message(error), _usage_hint(error))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, hint: str | None) -> None:
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
