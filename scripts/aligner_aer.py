#!/usr/bin/env python3
r"""Alignment error rate of the statistical aligner and its variants.

    python scripts/aligner_aer.py --data data/tatoeba \
        --gold train.align --src train.zh --ref train.en

Learns from a prepared corpus, links the words of the given sentences, and prints a
Markdown table: IBM model 1 and the HMM, each direction alone, both put together
afterwards, and both learning in agreement. The given sentences are not
learned from as long as they are not in the corpus (`data.exclude`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nmt import cli
from nmt.align import Aligner
from nmt.align.links import lexical_links
from nmt.align.score import alignment_score, check_in_range, read_gold, read_token_pairs
from nmt.data.batches import Align
from nmt.data.packed import PackedSet
from nmt.data.tokenizer import load_both
from nmt.prepare.pipeline import load_manifest

VARIANTS: dict[str, dict[str, int]] = {
    "model 1": {"hmm_rounds": 0},
    "HMMs, each for itself": {"agree": False},
    "HMMs in agreement": {},
}


def directions(aligner: Aligner) -> dict[str, Align]:
    """The ways to ask an aligner."""
    return {
        "English from Chinese": lambda *sides: aligner.directions(*sides)[0],
        "Chinese from English": lambda *sides: aligner.directions(*sides)[1],
        "both": aligner.posteriors,
    }


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def aligner_aer(
    data: Annotated[Path, typer.Option(help="Folder of a prepared corpus.")],
    gold: Annotated[Path, typer.Option(help="Links made by hand, zero-based.")],
    src: Annotated[Path, typer.Option(help="Their Chinese tokens.")],
    ref: Annotated[Path, typer.Option(help="Their English tokens.")],
    pairs: Annotated[int, typer.Option(help="Pairs to learn from.")] = 200_000,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 1,
) -> None:
    """Print AER, precision and recall of each variant."""
    links, sentences = read_gold(gold, one_based=False), read_token_pairs(src, ref)
    check_in_range(str(gold), links, sentences)
    zh, en = load_both(data, simplify=load_manifest(data)["config"]["to_simplified"])
    corpus = PackedSet.open(data, "train")
    print("| learned | asked | AER | precision | recall | links |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, options in VARIANTS.items():
        began = time.process_time()
        aligner = Aligner.learn(corpus, pairs=pairs, seed=seed, **options)
        print(f"{name}: {time.process_time() - began:.0f} s of processor time", file=sys.stderr)
        for asked, align in directions(aligner).items():
            found = alignment_score(list(lexical_links(align, zh, en, sentences)), links)
            print(
                f"| {name} | {asked} | {found.aer:.1f} | {found.precision:.1f} "
                f"| {found.recall:.1f} | {found.links:,} |",
                flush=True,
            )


if __name__ == "__main__":
    cli.run(app)
