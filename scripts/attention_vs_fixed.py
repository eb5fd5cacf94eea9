#!/usr/bin/env python3
r"""Compare attention with a fixed context vector by source length.

Trains a recipe twice, with `model.attention` additive and none, translates the test set with both,
and draws BLEU by source length, as figure 2 of Bahdanau, Cho & Bengio (2015).

    python scripts/attention_vs_fixed.py --config configs/tatoeba.yaml \
        --set data.sources.0.path=tatoeba.tsv.gz --output docs/attention_vs_fixed/tatoeba

A repeated command resumes. Needs the extra `plots`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Optional

import typer

from nmt import cli
from nmt.config.load import load_config
from nmt.config.schema import Config
from nmt.evaluate import lengths
from nmt.evaluate.metrics import RESAMPLES, Score, score
from nmt.evaluate.report import length_table, score_table
from nmt.io.write import write_whole
from nmt.prepare.pipeline import prepare
from nmt.prepare.report import summary
from nmt.run.directory import Run
from nmt.train.loop import train
from nmt.translate.translator import Translator
from nmt.viz.plots import check_chart_name, length_chart

logger = logging.getLogger("nmt")

NAMES = {"additive": "attention", "none": "one fixed vector"}

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def attention_vs_fixed(
    config: Annotated[Path, typer.Option(metavar="FILE", help="recipe for both trainings")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="for by_length.svg and by_length.md")],
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="override a key in both recipes"),
    ] = None,
    buckets: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="N,N,…", help="longest source of each bucket, in characters"),
    ] = None,
    device: str = "auto",
) -> None:
    """Train with and without attention, and compare by source length."""
    check_chart_name(output / "by_length.svg")
    chosen = lengths.parse_bounds(buckets) if buckets else None
    loaded = load_config(config, set_)
    manifest, _ = prepare(loaded)
    logger.info(summary(manifest))
    folders = {kind: _train(loaded, kind, device) for kind in NAMES}

    sources: list[str] = []
    references: list[str] = []
    hypotheses: dict[str, list[str]] = {}
    for kind, folder in folders.items():
        trained = Run.open(folder)
        sources, references = trained.text("test", "src"), trained.text("test", "trg")
        translations = Translator.load(trained, device).translate(sources)
        hypotheses[NAMES[kind]] = [translation.text for translation in translations]

    bands = lengths.make_buckets(sources, chosen)
    banded = {
        name: lengths.score_buckets(bands, lines, [references])
        for name, lines in hypotheses.items()
    }
    whole: dict[str, list[Score]] = {
        name: score(lines, [references], resamples=RESAMPLES) for name, lines in hypotheses.items()
    }
    table = score_table(list(whole), list(whole.values())) + "\n\n" + length_table(bands, banded)
    if loaded.train.guided_alignment:
        # Only the model with attention can be guided.
        table += f"\n\nAttention was guided: train.guided_alignment {loaded.train.guided_alignment}"
    typer.echo(table)
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "by_length.svg", length_chart([band.title for band in bands], banded))
    write_whole(output / "by_length.md", f"{table}\n".encode())
    logger.info(f"written: {output / 'by_length.svg'}, {output / 'by_length.md'}")


def _train(config: Config, kind: str, device: str) -> Path:
    """Train or resume one of the two and return its run directory."""
    folder = config.run.with_name(f"{config.run.name}-{kind}")
    model = config.model.model_copy(update={"attention": kind})
    _, progress = train(config.model_copy(update={"run": folder, "model": model}), device)
    if progress.stopped_by is None:
        raise typer.Exit(130)
    return folder


if __name__ == "__main__":
    cli.run(app)
