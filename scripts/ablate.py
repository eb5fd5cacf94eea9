#!/usr/bin/env python3
r"""Ablation: train a recipe and variants of it over several seeds.

Trains the base recipe and one variant per --change, and writes a table of dev BLEU, chrF2, dev
loss, minutes and parameters.

    python scripts/ablate.py --config configs/tatoeba.yaml --set train.epochs=9 \
        --change train.guided_alignment=0.1 --change "model.dropout=0.4 model.word_dropout=0.2" \
        --seeds 1,2 --output docs/ablation/tatoeba

Scores are those of the best checkpoint on the whole dev set; the test set is not used. A repeated
command resumes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import statistics
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer
from torch.nn.functional import cross_entropy

from nmt import cli
from nmt.config.load import load_config
from nmt.config.schema import Config
from nmt.data.batches import pad_pairs
from nmt.errors import NmtError
from nmt.evaluate.metrics import score
from nmt.evaluate.report import format_table
from nmt.io.write import write_whole
from nmt.model import Seq2Seq
from nmt.prepare.pipeline import prepare
from nmt.run.directory import Run
from nmt.run.journal import environment
from nmt.symbols import PAD
from nmt.train.loop import train
from nmt.translate.translator import Translator

logger = logging.getLogger("nmt")

BASE = "base"
HEAD = ("change", "BLEU", "chrF2", "dev loss", "minutes", "parameters", "trainings")
_DEV_BATCH = 64

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def ablate(
    config: Annotated[Path, typer.Option(metavar="FILE", help="the base recipe")],
    output: Annotated[Path, typer.Option(metavar="PATH", help="for PATH.md and PATH.json")],
    change: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="KEY=VALUE …", help="one variant, of one key or more; repeatable"),
    ] = None,
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="override a key in all variants"),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="N,N,…")] = "1",
    device: str = "auto",
) -> None:
    """Train the base and each change, and write the table."""
    numbers = _parse_seeds(seeds)
    if not output.name:
        raise NmtError(f"--output {output}: a file name is needed", f"{output / 'ablation'}")
    changes = [BASE, *(change or [])]
    # Report a mistake in any change before the first training.
    plans = {
        name: [_config(config, set_, name, seed) for seed in numbers]
        for name in dict.fromkeys(changes)
    }
    for name, (first, *_) in plans.items():
        if name != BASE and first.model_copy(update={"run": plans[BASE][0].run}) == plans[BASE][0]:
            raise NmtError(f"--change {name!r}: equals the base")
    rows, records = [], []
    for name, configs in plans.items():
        results = [_train(variant, device) for variant in configs]
        records += [{"change": name, **result} for result in results]
        rows.append(_row(name, results))
    signature = records[0]["signature"]
    text = (
        format_table(HEAD, rows) + f"\n\nDev set, best checkpoint of each training; {signature}\n"
    )
    typer.echo(text, nl=False)
    record = {"config": str(config), "set": set_ or [], "trainings": records}
    output.parent.mkdir(parents=True, exist_ok=True)
    for suffix, content in ((".md", text), (".json", json.dumps(record, indent=1) + "\n")):
        write_whole(output.with_name(output.name + suffix), content.encode())
    logger.info(f"written: {output}.md, {output}.json")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise NmtError(
            f"--seeds {text}: expected numbers separated by commas", "--seeds 1,2"
        ) from None
    if len(set(seeds)) < len(seeds):
        raise NmtError(f"--seeds {text}: a seed is repeated", "--seeds 1,2")
    return seeds


def _config(path: Path, overrides: list[str] | None, change: str, seed: int) -> Config:
    """Return the recipe with one change and its own run directory."""
    changes = [] if change == BASE else change.split()
    loaded = load_config(path, [*(overrides or []), *changes, f"train.seed={seed}"])
    plain = change.replace(" ", "_")
    name = re.sub(r"[^\w.=-]+", "_", plain)[:60]
    if name != plain:  # different changes may have the same name
        name += "-" + hashlib.sha256(change.encode()).hexdigest()[:8]
    name = f"{loaded.run.name}-{name}-{seed}"
    return loaded.model_copy(update={"run": loaded.run.parent / "ablation" / name})


def _train(config: Config, device: str) -> dict[str, Any]:
    """Train or resume one variant and return its results on dev."""
    prepare(config)
    trained, progress = train(config, device)
    if progress.stopped_by is None:
        raise typer.Exit(130)
    translator = Translator.load(trained.folder, device)
    sources, references = (trained.text("dev", side) for side in ("src", "trg"))
    texts = [translation.text for translation in translator.translate(sources)]
    bleu, chrf = score(texts, [references])
    return {
        "run": str(trained.folder),
        "seed": config.train.seed,
        "bleu": round(bleu.value, 2),
        "chrf": round(chrf.value, 2),
        "signature": bleu.signature,
        "dev_loss": round(_dev_loss(trained, translator.model, translator.device), 4),
        "minutes": round(progress.seconds / 60, 1),
        "updates": progress.update,
        "parameters": sum(p.numel() for p in translator.model.parameters()),
        **environment(translator.device),
    }


@torch.inference_mode()
def _dev_loss(run: Run, model: Seq2Seq, device: torch.device) -> float:
    """Return the unsmoothed cross-entropy of dev in nats per target token, EOS counted."""
    encoded = [
        (run.src.encode(src), run.trg.encode(trg))
        for src, trg in zip(run.text("dev", "src"), run.text("dev", "trg"), strict=True)
    ]
    pairs = sorted((pair for pair in encoded if pair[0]), key=lambda pair: len(pair[1]))
    total, tokens = 0.0, 0
    for start in range(0, len(pairs), _DEV_BATCH):
        src, trg = zip(*pairs[start : start + _DEV_BATCH], strict=True)
        batch = pad_pairs(src, trg).to(device)
        features, _ = model(batch.src, batch.src_mask, batch.trg_in)
        logits = model.decoder.logits(features).float().flatten(0, 1)
        targets = batch.trg_out.flatten()
        total += float(cross_entropy(logits, targets, ignore_index=PAD, reduction="sum"))
        tokens += batch.trg_tokens
    return total / tokens


def _row(name: str, results: list[dict[str, Any]]) -> list[str]:
    def mean(key: str, digits: int) -> str:
        values = [result[key] for result in results]
        text = f"{statistics.mean(values):.{digits}f}"
        if len(values) > 1 and digits:
            text += f" ± {statistics.stdev(values):.{digits}f}"
        return text

    parameters = f"{results[0]['parameters']:,}"
    scores = [mean("bleu", 1), mean("chrf", 1), mean("dev_loss", 2), mean("minutes", 1)]
    return [name, *scores, parameters, str(len(results))]


if __name__ == "__main__":
    cli.run(app)
