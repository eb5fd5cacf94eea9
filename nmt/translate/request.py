"""The options of ``nmt translate`` and their consistency checks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer

from nmt import options
from nmt.errors import NmtError
from nmt.io.read import open_bytes
from nmt.io.write import check_output_file, is_pipe, refuse_overwriting
from nmt.text.spans import compile_patterns
from nmt.viz.plots import check_installed

logger = logging.getLogger(__name__)

Errors = Literal["strict", "replace"]
AlignFormat = Literal["pharaoh", "soft"]
_OUTPUT = "Output formats"
ATTENTION_FORMATS = (".html", ".svg")


@dataclass(frozen=True)
class Request:
    """The options by name. Those without a help panel are the common ones."""

    texts: Annotated[
        list[str], typer.Argument(metavar="[TEXT]...", help="Chinese sentences; default: stdin.")
    ] = field(default_factory=list)
    input: Annotated[
        Path | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Translate the lines of a file, compressed or not: --input zh.txt.",
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write to this file instead of stdout: --output en.txt. Nothing is written if "
            "the command fails.",
        ),
    ] = None
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Run directory or package; default: the newest finished run in runs/, else the "
            "bundled model, everyday. Repeat for an ensemble of models on one corpus: "
            "--model runs/a --model runs/b.",
        ),
    ] = field(default_factory=list)
    beam: options.Beam = None
    show_attention: Annotated[
        bool,
        typer.Option("--show-attention", help="Print a grid of attention weights on stderr."),
    ] = False
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per line: source, translation, score, log_prob, pieces, "
            "alignment, flags.",
        ),
    ] = False
    int8: Annotated[
        bool, typer.Option("--int8", help="Use 8-bit integer matmuls: faster, CPU only.")
    ] = False
    device: options.Device = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            min=1,
            max=1024,
            metavar="N",
            help="CPU threads: --threads 1 leaves the other cores idle; default: all cores.",
            rich_help_panel=options.DECODING,
        ),
    ] = None
    batch_size: options.BatchSize = 64
    length_penalty: options.LengthPenalty = None
    coverage_penalty: Annotated[
        float | None,
        typer.Option(
            "--coverage-penalty",
            min=0.0,
            max=5.0,
            metavar="X",
            help="Weight of the coverage penalty: --coverage-penalty 0.2 if words go missing.",
            rich_help_panel=options.DECODING,
        ),
    ] = None
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option(
            "--no-repeat-ngram",
            min=0,
            max=20,
            metavar="N",
            help="Forbid a repeated sequence of N pieces: --no-repeat-ngram 3 stops loops.",
            rich_help_panel=options.DECODING,
        ),
    ] = None
    max_ratio: Annotated[
        float | None,
        typer.Option(
            "--max-ratio",
            min=0.01,
            max=100.0,
            metavar="X",
            help="Maximum output pieces per source piece, plus 10: --max-ratio 1.5.",
            rich_help_panel=options.DECODING,
        ),
    ] = None
    protect: Annotated[
        Literal["spans", "none"],
        typer.Option(
            "--protect",
            help="Copy URLs, tags, placeholders, codes and long numbers unchanged: spans (the "
            "default); or translate them like other text: none.",
            rich_help_panel=options.DECODING,
        ),
    ] = "spans"
    protect_pattern: Annotated[
        list[str],
        typer.Option(
            "--protect-pattern",
            metavar="REGEX",
            help="Copy text that matches a regular expression unchanged, too. Repeatable: "
            "--protect-pattern 'AB-[0-9]+'.",
            rich_help_panel=options.DECODING,
        ),
    ] = field(default_factory=list)
    n_best: Annotated[
        int | None,
        typer.Option(
            "--n-best",
            min=1,
            max=1000,
            metavar="N",
            help="Print the N best translations as `number ||| text ||| score`: --n-best 3.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    align: Annotated[
        AlignFormat | None,
        typer.Option(
            "--align",
            metavar="FORMAT",
            help="Append the word alignment after ` ||| `. pharaoh: 0-0 1-0 2-1, source "
            "character - target word, from 0; soft: all weights as JSON, null for a line too long.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    flags: Annotated[
        bool,
        typer.Option(
            "--quality-flags",
            help="List suspect lines on stderr: loops, unattended source, numbers that differ, "
            "odd lengths, unknown characters. Hints, not verdicts.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False
    errors: Annotated[
        Errors,
        typer.Option(
            "--encoding-errors",
            metavar="HOW",
            help="Input that is not UTF-8: strict stops and names the line, replace reads U+FFFD: "
            "--encoding-errors replace.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "strict"
    attention: Annotated[
        Path | None,
        typer.Option(
            "--attention",
            metavar="FILE",
            help="Write the attention to a page or a figure: --attention attention.html for any "
            "number of sentences, --attention attention.svg for at most 50.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None

    @property
    def attention_format(self) -> str | None:
        """Suffix of the attention file in lower case, such as ``.svg``; None without a file."""
        return None if self.attention is None else self.attention.suffix.lower()

    @property
    def shows_attention(self) -> bool:
        """Whether attention is written to a file or to stderr."""
        return self.show_attention or self.attention is not None

    @property
    def search(self) -> dict[str, float | None]:
        """Search settings that override those of the run, None where they do not."""
        names = ["beam", "length_penalty", "coverage_penalty", "no_repeat_ngram", "max_ratio"]
        return {name: getattr(self, name) for name in names}


def check(request: Request) -> None:
    """Check the options before a model is loaded.

    Raises:
        NmtError: options contradict each other, or a file cannot be read or written.
    """
    if request.texts and request.input is not None:
        raise NmtError("both TEXT and --input were given", "give one of them")
    if request.protect == "none" and request.protect_pattern:
        raise NmtError("--protect none and --protect-pattern contradict", "give one of them")
    compile_patterns(request.protect_pattern)
    if len(request.texts) == 1 and _is_file(request.texts[0]):
        logger.warning(
            f"{request.texts[0]}: translating the file's name; to translate its lines: "
            f"nmt translate --input {request.texts[0]}"
        )
    if request.attention is not None:
        _check_attention_file(request.attention)
    if request.n_best is not None and request.align is not None and not request.json:
        raise NmtError("--n-best with --align needs --json", "add --json, or leave one of them out")
    # Report a missing file before seconds of loading; a pipe can be opened only once.
    if request.input is not None and not is_pipe(request.input):
        with open_bytes(request.input):
            pass
    output = options.none_if_stdout(request.output)
    written = [path for path in (output, request.attention) if path is not None]
    for path in written:
        check_output_file(path)
    refuse_overwriting(written, [] if request.input is None else [request.input])


def _check_attention_file(path: Path) -> None:
    """Check that the suffix names a format and that its packages are installed.

    Raises:
        NmtError: another suffix; matplotlib is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in ATTENTION_FORMATS:
        raise NmtError(
            f"--attention {path}: unknown format {suffix or '(no suffix)'}",
            f"name a file that ends in {' or '.join(ATTENTION_FORMATS)}",
        )
    if suffix == ".svg":
        check_installed(str(path))


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or a null character
        return False
