"""``nmt init``."""

from __future__ import annotations

import logging
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.errors import NmtError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nmt.config.sources import Source
    from nmt.init.template import Corpus

logger = logging.getLogger(__name__)

_RECIPES = Path(__file__).parents[1] / "recipes"


class Recipe(str, Enum):
    """The configurations that are installed with the program."""

    QUICKSTART = "quickstart"
    TATOEBA = "tatoeba"
    OPEN = "open"
    BASE = "base"


def init(
    texts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Parallel text: TMX, TSV, CSV, JSONL, PO, XLIFF, or two files of lines.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Configuration to write.")
    ] = Path("mine.yaml"),
    recipe: Annotated[
        Recipe | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help="Copy an installed configuration instead: quickstart, tatoeba, open or base.",
        ),
    ] = None,
) -> None:
    """Write a configuration for your text: format, sizes, training time on this machine.

    \b
      nmt init memory.tmx
      nmt init text.zh text.en subtitles.tsv.gz --output mine.yaml
      nmt init --recipe quickstart --output quickstart.yaml
    """
    from nmt.io.write import check_output_file, write_text

    if (recipe is None) == (not texts):
        raise NmtError("nmt init needs either TEXT or --recipe", "nmt init memory.tmx")
    check_output_file(output)
    if output.exists():
        raise NmtError(f"{output}: exists", f"choose another name: --output {output.stem}-2.yaml")
    if recipe is not None:
        text = (_RECIPES / f"{recipe.value}.yaml").read_text(encoding="utf-8")
    else:
        text = _configuration(texts or [], output)
    write_text(output, text)
    logger.info(f"written: {output}")
    logger.info(f"next: nmt prepare --config {output}")


def _configuration(texts: Sequence[Path], output: Path) -> str:
    from nmt.init.detect import detect_sources
    from nmt.init.estimate import estimate_minutes
    from nmt.init.template import make_config, render

    corpus = _measure(detect_sources(texts))
    config = make_config(corpus, output.stem)
    minutes = estimate_minutes(config, corpus)
    duration = f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
    time = f"at most about {duration} on this machine's CPU ({config.train.epochs} epochs)"
    logger.info(f"training: {time}")
    return render(config, corpus, output, time)


def _measure(sources: Sequence[Source]) -> Corpus:
    """Read all pairs once.

    Raises:
        NmtError: a malformed file, or no pair at all.
    """
    from nmt.init.template import Corpus
    from nmt.prepare.sources import describe, read_pairs

    total = characters = words = 0
    for source in sources:
        pairs = 0
        for src, trg in read_pairs(source):
            if src and trg:
                pairs += 1
                characters += len(src)
                words += trg.count(" ") + 1
        logger.info(f"{describe(source)}: {source.source}, {pairs:,} pairs")
        total += pairs
    if total == 0:
        raise NmtError("no pair of sentences in the text")
    return Corpus(sources, total, characters / total, words / total)
