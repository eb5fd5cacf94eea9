"""``nmt package`` and ``nmt models``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nmt import options

if TYPE_CHECKING:
    from nmt.run.models import Listed

logger = logging.getLogger(__name__)


def package(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="The package: --output zh-en.nmt.")
    ],
    dtype: Annotated[
        Literal["float16", "float32", "int8"],
        typer.Option(
            "--dtype",
            metavar="NAME",
            help="Of the stored weights: float16, float32, or int8 with a scale for each row.",
        ),
    ] = "float16",
    with_aligner: Annotated[
        bool,
        typer.Option("--with-aligner", help="Include the statistical aligner, for nmt align."),
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", metavar="TEXT", help='Of the model, for its card: --licence "CC BY 4.0".'
        ),
    ] = None,
) -> None:
    """Write the best checkpoint of a run to one file, with all that translation needs.

    The file has the weights, tokenizers, settings and a model card. Commands that take a run
    directory take the file too. The same run gives the same bytes.

    \b
      nmt package runs/quickstart --output zh-en.nmt
      nmt translate --model zh-en.nmt "我爱中国"
    """
    from nmt.errors import NmtError
    from nmt.io.write import check_output_file, refuse_overwriting, write_whole
    from nmt.run.directory import Run
    from nmt.run.package import SUFFIX, pack

    if output.suffix != SUFFIX:
        raise NmtError(
            f"--output {output}: a package ends in {SUFFIX}",
            f"--output {output.with_suffix(SUFFIX)}",
        )
    check_output_file(output)
    refuse_overwriting([output], [run])
    opened = Run.open(run)
    if opened.info.finished is None:
        logger.warning(f"{run}: training has not finished; its best checkpoint so far is packaged")
    data = pack(opened, dtype, with_aligner=with_aligner, licence=licence)
    write_whole(output, data)
    logger.info(f"{output}: {len(data) / 1e6:.1f} MB, {dtype}")


def models() -> None:
    """List the models: the bundled one, packages in this folder, and runs in runs/.

    The name in the first column is an argument for --model.

    \b
      nmt models
    """
    from nmt.log import print_text
    from nmt.run.models import find_models

    found_models = list(find_models(options.RUNS, Path()))
    if not found_models:
        logger.info(f"no model: no run in {options.RUNS}/, no package in this folder")
        return
    header = ("name", "date", "pairs", "dev BLEU", "size", "state")
    rows = [header, *map(_row, found_models)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    print_text(
        "\n".join(
            "  ".join(
                cell.rjust(width) if column in (2, 3, 4) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
    )


def _row(model: Listed) -> tuple[str, ...]:
    return (
        model.name,
        model.date[:10] or "-",
        "-" if model.pairs is None else f"{model.pairs:,}",
        "-" if model.dev_bleu is None else f"{model.dev_bleu:.1f}",
        f"{model.size / 1e6:.1f} MB",
        model.state,
    )
