#!/usr/bin/env python3
"""CPU benchmarks: each subcommand prints one line and writes one JSON file.

    python scripts/bench.py train --shape small --corpus data/tatoeba
    python scripts/bench.py prepare corpus.tsv.gz --pairs 300000 --pairs 1800000
    python scripts/bench.py translate --model runs/tatoeba

`scripts/bench_gpu.py` measures on a GPU. Speeds are medians of repeated runs, and also given
relative to the matrix multiply of the same machine in the same run: machines are shared and noisy.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from shapes import SHAPES

from nmt import cli
from nmt.config.schema import ModelConfig
from nmt.data.batches import Batch, Blocks, default_block_tokens, make_batch, plan_epoch
from nmt.data.manifest import load_manifest
from nmt.data.packed import PackedSet
from nmt.device import allowed_cores, choose_precision
from nmt.evaluate.metrics import score
from nmt.io.read import read_lines
from nmt.model import Seq2Seq
from nmt.run.directory import Run
from nmt.run.journal import environment
from nmt.train.forecast import peak_rss, synchronize
from nmt.train.gradient import ModelLoss
from nmt.translate.translator import Translator

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
RESULTS = Path("docs/benchmarks")


@app.callback()
def main() -> None:
    """Measure nmt on this CPU."""


@app.command()
def train(
    corpus: Annotated[Path, typer.Option(help="a prepared corpus, data/tatoeba for example")],
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "small",
    batch_tokens: int = 2048,
    updates: int = 40,
    repeats: int = 5,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto")] = "auto",
) -> None:
    """Measure training speed, its utilisation of the matrix multiply, and where time is spent.

    The matrix multiply is measured in the same precision, between the repeats.
    """
    from gpu.work import work_of

    chosen = choose_precision(precision, torch.device("cpu"))
    manifest = load_manifest(corpus)
    packed = PackedSet.open(corpus, "train")
    vocab = {side: manifest.tokenizers[side].pieces for side in ("src", "trg")}
    sizes = SHAPES[shape]
    torch.manual_seed(1)
    config = ModelConfig(dropout=0.2, word_dropout=0.1, **sizes)
    model = Seq2Seq(vocab["src"], vocab["trg"], config)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    loss_of = ModelLoss(model, 0.1, 0.0, chosen)
    lengths = (packed.src.lengths, packed.trg.lengths)
    plan: list[Blocks] = []
    for epoch in itertools.count():
        if len(plan) >= (repeats + 1) * updates:
            break
        plan += plan_epoch(
            *lengths, batch_tokens, 1, epoch, block_tokens=default_block_tokens(torch.device("cpu"))
        )

    def update(blocks: Blocks) -> list[Batch]:
        batches = [make_batch(packed, block) for block in blocks]
        total = sum(batch.trg_tokens for batch in batches)
        for batch in batches:
            smoothed, _ = loss_of(batch)
            torch.autograd.backward(smoothed / total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return batches

    rates, ceilings, flops = [], [], []
    for repeat in range(repeats + 1):
        ceilings.append(matmul_rate(chosen))
        start = time.perf_counter()
        selected = plan[repeat * updates : (repeat + 1) * updates]
        batches = [batch for blocks in selected for batch in update(blocks)]
        seconds = time.perf_counter() - start
        tokens = sum(batch.trg_tokens for batch in batches)
        rates.append(tokens / seconds)
        flops.append(sum(work_of(sizes, vocab["trg"], 0, b).flops for b in batches) / tokens)
    # The first repeat is the warm-up.
    rate, flops_per_token = statistics.median(rates[1:]), statistics.median(flops[1:])
    with torch.profiler.profile() as profile:
        for blocks in plan[:updates]:
            update(blocks)
    ceiling = statistics.median(ceilings[1:])
    record = {
        "shape": shape,
        "precision": str(chosen).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "pieces": vocab,
        "target_tokens_per_second": round(rate),
        "fastest": round(max(rates)),
        "mflop_per_target_token": round(flops_per_token / 1e6, 2),
        "matmul_gflops": round(ceiling / 1e9, 1),
        "utilisation": round(rate * flops_per_token / ceiling, 3),
        "peak_rss_mib": round(peak_rss() / 2**20),
        "batch_tokens": batch_tokens,
        "time_split": time_split(profile),
    }
    write(f"train-{shape}" + ("" if chosen == torch.float32 else "-bfloat16"), record)


def time_split(profile: torch.profiler.profile) -> dict[str, float]:
    """Return the shares of time of the parts of the profiled updates."""
    parts = {
        "recurrence_forward": "_Recurrence",
        "recurrence_backward": "_RecurrenceBackward",
        "output_and_loss": "_OutputLoss",
        "optimizer": "aten::_fused_adamw_",
    }
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    times = {event.key: event.cpu_time_total for event in events}
    shares = {name: round(times[key] / total, 3) for name, key in parts.items()}
    return {**shares, "encoder_embedding_readout_and_rest": round(1 - sum(shares.values()), 3)}


@app.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(help="Chinese, tab, English; may be compressed")],
    pairs: Annotated[
        list[int],
        typer.Option(help="pairs to prepare; the corpus is repeated if it has fewer. Repeatable."),
    ],
    workers: Annotated[int | None, typer.Option(help="as for nmt prepare")] = None,
    scratch: Annotated[Path | None, typer.Option(help="folder for temporary files")] = None,
) -> None:
    """Measure time and memory of nmt prepare at several sizes of one corpus.

    Copies of a repeated corpus get a suffix on both sides, so that no pair is a duplicate. Memory
    is sampled and summed over all processes: `rss` counts resident pages (shared pages once per
    process), `anon` only pages without a file.
    """
    sizes: list[dict[str, Any]] = []
    for count in sorted(pairs):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            size = prepare_once(corpus, count, workers, Path(folder))
        for kind in ("rss", "anon"):
            if sizes:
                grown = (size[f"peak_{kind}_mib"] - sizes[-1][f"peak_{kind}_mib"]) * 2**20
                further = count - sizes[-1]["pairs"]
                size[f"{kind}_bytes_per_extra_pair"] = round(grown / further, 1)
        sizes.append(size)
        print(f"prepare-{count}", " ".join(f"{k}={v}" for k, v in size.items()), flush=True)
    write("prepare", {"corpus": corpus.name, "workers": workers or allowed_cores(), "sizes": sizes})


def prepare_once(corpus: Path, count: int, workers: int | None, folder: Path) -> dict[str, Any]:
    """Prepare `count` pairs in `folder`, in a process, and return time and memory."""
    repeat_corpus(corpus, count, folder / "corpus.tsv")
    sources = [{"source": "tsv", "path": str(folder / "corpus.tsv")}]
    data = {"dir": str(folder / "out"), "sources": sources, "dev": 1000, "test": 1000}
    (folder / "config.yaml").write_text(json.dumps({"run": str(folder / "run"), "data": data}))
    command = [sys.executable, "-m", "nmt", "prepare", "--config", str(folder / "config.yaml")]
    start, used = time.perf_counter(), children_seconds()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--workers", str(workers)] if workers else [])], stderr=log
        )
        rss = anon = 0
        while process.poll() is None:
            now = tree_memory(process.pid)
            rss, anon = max(rss, now[0]), max(anon, now[1])
            time.sleep(0.1)
    seconds, cpu_seconds = time.perf_counter() - start, children_seconds() - used
    if process.returncode:
        sys.exit((folder / "log").read_text())
    digest = hashlib.sha256()
    for path in sorted((folder / "out").glob("train.*.npy")):
        digest.update(path.read_bytes())
    return {
        "pairs": count,
        "train_pairs": load_manifest(folder / "out").train.pairs,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "pairs_per_second": round(count / seconds),
        "cpu_us_per_pair": round(cpu_seconds / count * 1e6, 1),
        "peak_rss_mib": round(rss / 2**20),
        "peak_anon_mib": round(anon / 2**20),
        "packed_sha256": digest.hexdigest()[:16],
    }


def children_seconds() -> float:
    """Return the processor time of all ended child processes and their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def repeat_corpus(corpus: Path, count: int, path: Path) -> None:
    """Write `count` pairs, repeating the corpus with a different suffix each time."""
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for copy in itertools.count():
            ending = f" x{chr(ord('a') + copy)}" if copy else ""
            for line in read_lines(corpus):
                if not count:
                    return
                src, trg = line.split("\t")
                out.write(f"{src}{ending}\t{trg}{ending}\n")
                count -= 1


def tree_memory(pid: int) -> tuple[int, int]:
    """Return resident and anonymous bytes of a process and its children (Linux)."""
    rss = anon = 0
    with contextlib.suppress(OSError, KeyError):  # the process may end meanwhile
        status = Path(f"/proc/{pid}/status").read_text()
        sizes = dict(line.split(":", 1) for line in status.splitlines())
        rss, anon = (int(sizes[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon"))
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                below = tree_memory(child)
                rss, anon = rss + below[0], anon + below[1]
    return rss, anon


@app.command()
def translate(
    model: Annotated[Path, typer.Option(help="a trained run")],
    sentences: int = 1000,
    beam: int = 5,
    batch_size: int = 64,
    int8: bool = False,
    device: str = "cpu",
    repeats: int = 5,
) -> None:
    """Measure translation speed on dev, latency of single sentences, BLEU and memory."""
    run = Run.open(model)
    lines, references = (run.text("dev", side)[:sentences] for side in ("src", "trg"))
    translator = Translator.load(model, device, int8=int8)
    rss_before = peak_rss()
    translator.search = translator.search.model_copy(update={"beam": beam})
    translations = translator.translate(lines, batch_size)  # warm-up
    rates, cpu_rates, ceilings = [], [], []
    for _ in range(repeats):
        ceilings.append(matmul_rate(device=translator.device))
        start, used = time.perf_counter(), time.process_time()
        translator.translate(lines, batch_size)
        synchronize(translator.device)
        rates.append(len(lines) / (time.perf_counter() - start))
        cpu_rates.append(len(lines) / (time.process_time() - used))
    latencies = []
    for line in lines[:100]:
        start = time.perf_counter()
        translator.translate([line])
        synchronize(translator.device)
        latencies.append(time.perf_counter() - start)
    (bleu, *_) = score([t.text for t in translations], [references])
    tokens = sum(len(part.hypotheses[0].ids) + 1 for t in translations for part in t.parts)
    record = {
        "model": run.config.model.model_dump(),
        "trg_pieces": len(run.trg),
        "beam": beam,
        "batch_size": batch_size,
        "int8": int8,
        "sentences": len(lines),
        "sentences_per_second": round(statistics.median(rates), 1),
        "fastest": round(max(rates), 1),
        "sentences_per_cpu_second": round(statistics.median(cpu_rates), 1),
        "target_tokens_per_sentence": round(tokens / len(lines), 1),
        "latency_ms_median": round(statistics.median(latencies) * 1e3, 1),
        "latency_ms_p95": round(sorted(latencies)[int(0.95 * len(latencies))] * 1e3, 1),
        "cold_start_s": round(cold_start(model, int8), 2)
        if translator.device.type == "cpu"
        else None,
        "bleu": round(bleu.value, 2),
        "matmul_gflops": round(statistics.median(ceilings) / 1e9, 1),
        "threads": torch.get_num_threads(),
        "peak_rss_mib": round(peak_rss() / 2**20),
        "rss_before_mib": round(rss_before / 2**20),
        "peak_gpu_mib": peak_gpu(translator.device),
    }
    on_gpu = translator.device.type == "cuda"
    name = f"translate{'-int8' if int8 else ''}{'-cuda' if on_gpu else ''}"
    write(name, record, translator.device)


def cold_start(model: Path, int8: bool) -> float:
    """Return the seconds from process start to one translation; best of three."""
    command = [sys.executable, "-m", "nmt", "translate", "--model", str(model), "--device", "cpu"]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [*command, *(["--int8"] if int8 else []), "我爱中国。"],
            check=True, capture_output=True,
        )  # fmt: skip
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_rate(
    precision: torch.dtype = torch.float32,
    size: int = 2048,
    seconds: float = 0.5,
    device: torch.device | None = None,
) -> float:
    """Return the floating-point operations per second of a square matrix product."""
    device = device or torch.device("cpu")
    a, b = torch.randn(2, size, size, device=device).to(precision)
    a @ b
    synchronize(device)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        a @ b
        synchronize(device)
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - start)


def peak_gpu(device: torch.device) -> int | None:
    """Return the peak memory of tensors on a GPU in MiB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None


def write(name: str, record: dict[str, Any], device: torch.device | None = None) -> None:
    """Print one line and write ``docs/benchmarks/NAME.json``."""
    full = {"benchmark": name, **record, **environment(device or torch.device("cpu"))}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(full, indent=1) + "\n")
    print(name, " ".join(f"{key}={value}" for key, value in record.items()))


if __name__ == "__main__":
    cli.run(app)
