"""What the user asked of ``nmt translate``, checked before anything slow begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nmt.errors import NmtError
from nmt.io.read import open_bytes
from nmt.io.write import is_pipe, refuse_folder, refuse_overwriting

Errors = Literal["strict", "replace"]
AlignFormat = Literal["pharaoh", "soft"]


@dataclass(frozen=True)
class Request:
    """What the user asked for; the options of the command line by their names."""

    texts: list[str]
    input: Path | None
    output: Path | None
    errors: Errors
    batch_size: int
    n_best: int | None
    json: bool
    align: AlignFormat | None
    flags: bool
    show_attention: bool
    html: Path | None
    svg: Path | None
    png: Path | None

    @property
    def pictures(self) -> dict[str, Path]:
        """Files to draw, by format."""
        named = {"svg": self.svg, "png": self.png}
        return {kind: path for kind, path in named.items() if path is not None}

    @property
    def draws(self) -> bool:
        """Whether alignments are needed besides the lines."""
        return self.show_attention or self.html is not None or bool(self.pictures)


def check(request: Request) -> None:
    """Refuse what does not go together, before a model is loaded.

    Raises:
        NmtError: with what to leave out.
    """
    if request.texts and request.input is not None:
        raise NmtError("both TEXT and --input were given", "give one of them")
    if request.n_best is not None and request.align is not None and not request.json:
        raise NmtError("--n-best with --align needs --json", "add --json, or leave one of them out")
    # A missing file is told of before seconds of loading; a pipe can be opened only once.
    if request.input is not None and not is_pipe(request.input):
        with open_bytes(request.input):
            pass
    written = [p for p in (request.output, request.html, *request.pictures.values()) if p]
    for path in written:
        refuse_folder(path)
    refuse_overwriting(written, [] if request.input is None else [request.input])
    for kind, path in request.pictures.items():
        if path.suffix.lower() != f".{kind}":
            raise NmtError(
                f"--attention-{kind} {path}: a name that ends in .{kind} is needed",
                f"{path.with_suffix(f'.{kind}')}",
            )
