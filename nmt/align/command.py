"""The command ``nmt align``: link the words of sentence pairs, or score links."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt import options
from nmt.errors import NmtError

if TYPE_CHECKING:
    from nmt.align.aligner import Aligner
    from nmt.align.links import Links, TokenPair
    from nmt.run.models import Model


def align(
    src: Annotated[
        Path | None,
        typer.Option("--src", metavar="FILE", help="Chinese, tokens separated by spaces."),
    ] = None,
    trg: Annotated[
        Path | None,
        typer.Option("--trg", metavar="FILE", help="Its English translations, in tokens."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write the links there, not to stdout."),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(
            "--gold",
            metavar="FILE",
            help="Gold links (i-j, possible ones i-j-P): print AER, precision and recall "
            "instead of the links.",
        ),
    ] = None,
    links: Annotated[
        Path | None,
        typer.Option(
            "--links", metavar="FILE", help="With --gold: score these links; needs no model."
        ),
    ] = None,
    one_based: Annotated[
        bool, typer.Option("--one-based", help="Count tokens from 1, not from 0, in all files.")
    ] = False,
    model: options.Model = None,
) -> None:
    """Print word links i-j, one line per sentence pair, or score links.

    The links come from the statistical aligner of the run. i is the source token, j the target
    token. A run trained without guided alignment learns the aligner from its prepared corpus
    the first time.

    \b
      nmt align --src tokens.zh --trg tokens.en > links.pharaoh
      nmt align --src tokens.zh --trg tokens.en --gold gold.pharaoh
      nmt align --gold gold.pharaoh --links other.pharaoh
    """
    from nmt.align import score
    from nmt.align.links import link_tokens, pharaoh
    from nmt.data.parallel import check_has_chinese, check_same_length
    from nmt.io.write import refuse_overwriting, writing_lines
    from nmt.run.directory import newest_run
    from nmt.run.models import open_model

    _check_options(src, trg, gold, links, output, model)
    output = options.none_if_stdout(output)
    inputs = [path for path in (src, trg, gold, links) if path is not None]
    refuse_overwriting([] if output is None else [output], inputs)
    pairs: list[TokenPair] | None = None
    if src is not None and trg is not None:
        pairs = score.read_token_pairs(src, trg)
        check_has_chinese(str(src), [" ".join(tokens) for tokens, _ in pairs], "--src and --trg")
    gold_links = None if gold is None else score.read_gold(gold, one_based=one_based)
    if gold_links is not None and pairs is not None:
        check_same_length([(str(gold), gold_links), (str(src), pairs)])
        score.check_in_range(str(gold), gold_links, pairs)
    predicted: list[Links] = []
    if links is not None:
        predicted = score.read_links(links, one_based=one_based)
        check_same_length([(str(gold), gold_links or []), (str(links), predicted)])
    elif pairs is not None:
        opened = open_model(model or newest_run(options.RUNS))
        aligner = load_or_learn(opened)
        linked = link_tokens(aligner.posteriors, opened.src, opened.trg, pairs)
        if gold_links is None or output is not None:
            with writing_lines(output) as (write, _):
                for sentence_links in linked:
                    write(pharaoh(sentence_links, one_based=one_based))
                    predicted.append(sentence_links)
        else:
            predicted = list(linked)
    if gold_links is not None:
        result = score.alignment_score(predicted, gold_links)
        with writing_lines(None) as (write, _):
            write(
                f"AER {result.aer:.2f}  precision {result.precision:.2f}  "
                f"recall {result.recall:.2f}  "
                f"({result.sentences} sentences, {result.links} links)"
            )


def _check_options(
    src: Path | None,
    trg: Path | None,
    gold: Path | None,
    links: Path | None,
    output: Path | None,
    model: Path | None,
) -> None:
    if links is not None and gold is None:
        raise NmtError("--links needs --gold, the links to score against")
    if links is not None and (model is not None or output is not None):
        option = "--model" if model is not None else "--output"
        raise NmtError(f"--links cannot be combined with {option}: no links are computed")
    if (src is None) != (trg is None) or (src is None and links is None):
        raise NmtError("nmt align needs --src and --trg, both in tokens separated by spaces")


def load_or_learn(run: Model) -> Aligner:
    """Load the aligner of a model, or learn it from a run's prepared corpus and save it.

    Raises:
        NmtError: the aligner is damaged; a package has none; a run has none, and its corpus is
            missing or has changed.
    """
    from nmt.align.aligner import Aligner
    from nmt.data.packed import PackedSet
    from nmt.io.write import file_sha256
    from nmt.run.directory import ALIGNER
    from nmt.run.package import Package

    if isinstance(run, Package):
        if run.aligner is None:
            raise NmtError(
                f"{run.path}: a package without an aligner",
                "write it again: nmt package RUN --with-aligner",
            )
        return Aligner.parse(run.aligner, f"{run.path}: {ALIGNER}")
    path = run.folder / ALIGNER
    if path.exists():
        return Aligner.load(path)
    folder = run.config.data.dir
    hint = f"run nmt prepare --config {run.folder / 'config.yaml'}, or name another --model"
    if not (folder / "manifest.json").is_file():
        raise NmtError(
            f"{path}: missing, and {folder}, the corpus to learn it from, does not exist", hint
        )
    if file_sha256(folder / "manifest.json") != run.info.corpus:
        raise NmtError(
            f"{path}: missing, and {folder} is not the corpus that this run was trained on", hint
        )
    return Aligner.learn_and_save(path, PackedSet.open(folder, "train"), run.config.train.seed)
