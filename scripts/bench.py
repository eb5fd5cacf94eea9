#!/usr/bin/env python3
"""Benchmarks: each subcommand measures one thing, prints one line, and writes one JSON.

    python scripts/bench.py train --shape small --corpus data/tatoeba
    python scripts/bench.py prepare corpus.tsv.gz --pairs 300000 --pairs 1800000
    python scripts/bench.py translate --shape small --model runs/tatoeba
    python scripts/bench.py padding --corpus data/tatoeba
    python scripts/bench.py gpu --corpus data/base

Machines are shared and noisy, so speed is given as a share of what the same machine's
matrix multiply did in the same run, and as medians of repeated runs.
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
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from shapes import SHAPES

from nmt import cli
from nmt.config.schema import ModelConfig
from nmt.data.batches import Batch, Blocks, default_block_tokens, make_batch, plan_epoch
from nmt.data.manifest import load_manifest
from nmt.data.packed import PackedSet
from nmt.device import allowed_cores, choose_precision
from nmt.errors import NmtError
from nmt.evaluate.metrics import score
from nmt.io.read import read_lines
from nmt.model import Seq2Seq, seq2seq
from nmt.model.fast import recurrence
from nmt.run.directory import Run
from nmt.run.journal import environment
from nmt.train.cuda_graphs import bucket_sizes
from nmt.train.forecast import finish_work, peak_rss
from nmt.train.gradient import SummedLoss
from nmt.translate.translator import Translator

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
RESULTS = Path("docs/benchmarks")
PADDED = (2048, 4096, 8192, 16384, 32768)  # target tokens in an update


@app.callback()
def main() -> None:
    """Measure this program on this machine."""


@app.command()
def train(
    corpus: Annotated[Path, typer.Option(help="a prepared corpus, data/tatoeba for example")],
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "small",
    batch_tokens: int = 2048,
    updates: int = 40,
    repeats: int = 5,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto")] = "auto",
) -> None:
    """Training speed on this CPU, its share of the machine's matrix multiply, and where time goes.

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
    loss_of = SummedLoss(model, 0.1, 0.0, chosen)
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

    rates, ceilings, flops, paddings = [], [], [], []
    for repeat in range(repeats + 1):
        ceilings.append(matmul_rate(chosen))
        began = time.perf_counter()
        of_updates = [update(blocks) for blocks in plan[repeat * updates : (repeat + 1) * updates]]
        seconds = time.perf_counter() - began
        batches = [batch for of_update in of_updates for batch in of_update]
        tokens = sum(batch.trg_tokens for batch in batches)
        rates.append(tokens / seconds)
        flops.append(sum(work_of(sizes, vocab["trg"], 0, b).flops for b in batches) / tokens)
        paddings.append(padding(batches))
    # The first repeat warms up.
    rate, flops_per_token = statistics.median(rates[1:]), statistics.median(flops[1:])
    with torch.profiler.profile() as profile:
        for blocks in plan[:updates]:
            update(blocks)
    ceiling = statistics.median(ceilings[1:])
    times_plain = times_plain_loop(update, plan[:updates])
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
        "padding": {
            side: round(statistics.median(found[side] for found in paddings[1:]), 4)
            for side in paddings[0]
        },
        "peak_rss_mib": round(peak_rss() / 2**20),
        "batch_tokens": batch_tokens,
        "times_plain_loop": round(times_plain, 2),
        "time_split": time_split(profile),
    }
    write(f"train-{shape}" + ("" if chosen == torch.float32 else "-bfloat16"), record)


def times_plain_loop(update: Callable[[Blocks], object], plan: list[Blocks]) -> float:
    """How many times as fast updates are as with PyTorch's own backward through the time loop.

    Both ways one after the other for each batch, in processor time; the median.
    """
    ratios = []
    for blocks in plan:
        taken = []
        for unroll in (recurrence.unroll, recurrence.unroll_by_step):
            with mock.patch.object(seq2seq, "unroll", unroll):
                began = time.process_time()
                update(blocks)
                taken.append(time.process_time() - began)
        ratios.append(taken[1] / taken[0])
    return statistics.median(ratios)


def padding(batches: list[Batch]) -> dict[str, float]:
    """Share of cells without a token, by side and of both together."""
    real = [sum(int(b.src_mask.sum()) for b in batches), sum(b.trg_tokens for b in batches)]
    cells = [sum(b.src.numel() for b in batches), sum(b.trg_out.numel() for b in batches)]
    return shares_of_padding(real, cells)


def shares_of_padding(real: list[int], cells: list[int]) -> dict[str, float]:
    """Of each side and of both together, from the tokens and the cells of each side."""
    found = {
        "source": 1 - real[0] / cells[0],
        "target": 1 - real[1] / cells[1],
        "both": 1 - sum(real) / sum(cells),
    }
    return {side: round(share, 4) for side, share in found.items()}


@app.command("padding")
def padding_of_plans(corpus: Annotated[Path, typer.Option(help="a prepared corpus")]) -> None:
    """How much of a plan is padding, on a CPU and in a GPU's buckets; no network runs."""
    packed = PackedSet.open(corpus, "train")
    shares = {
        kind: {f"{tokens}": padding_of_plan(packed, tokens, kind) for tokens in PADDED}
        for kind in ("cpu", "cuda")
    }
    write(f"padding-{corpus.name}", {"pairs": len(packed), **shares})


def padding_of_plan(packed: PackedSet, batch_tokens: int, kind: str) -> dict[str, float]:
    """Share of cells without a token in the first epoch of a training, as `padding`.

    On a GPU also how many sizes of a batch there are, each of which is recorded.
    """
    src, trg = packed.src.lengths, packed.trg.lengths
    blocks_of = default_block_tokens(torch.device(kind))
    plan = plan_epoch(src, trg, batch_tokens, 1, 0, block_tokens=blocks_of)
    cells, buckets = [0, 0], set()
    for block in itertools.chain.from_iterable(plan):
        sizes = len(block), int(src[block].max()), int(trg[block].max()) + 1  # EOS
        rows, src_len, trg_len = bucket_sizes(*sizes) if kind == "cuda" else sizes
        cells = [cells[0] + rows * src_len, cells[1] + rows * trg_len]
        buckets.add((rows, src_len, trg_len))
    shares = shares_of_padding([int(src.sum()), int(trg.sum()) + len(trg)], cells)
    return {**shares, "buckets": len(buckets)} if kind == "cuda" else shares


def time_split(profile: torch.profiler.profile) -> dict[str, float]:
    """Shares of the time of the profiled updates, by what took it."""
    parts = {
        "recurrence_forward": "_Recurrence",
        "recurrence_backward": "_RecurrenceBackward",
        "output_and_loss": "_OutputLoss",
        "optimizer": "aten::_fused_adamw_",
    }
    events = profile.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    took = {event.key: event.cpu_time_total for event in events}
    shares = {name: round(took[key] / total, 3) for name, key in parts.items()}
    return {**shares, "encoder_embedding_readout_and_rest": round(1 - sum(shares.values()), 3)}


@app.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(help="Chinese, tab, English; may be compressed")],
    pairs: Annotated[
        list[int],
        typer.Option(help="Pairs to prepare; more than there are repeat the corpus. Repeatable."),
    ],
    workers: Annotated[int | None, typer.Option(help="as for nmt prepare")] = None,
    scratch: Annotated[Path | None, typer.Option(help="where there is room for it")] = None,
) -> None:
    """Time and memory of nmt prepare, at several sizes of one corpus.

    A repeated corpus gets another ending on both sides of each copy, so that nothing is
    a duplicate. Memory is sampled, as the sum over all processes: `rss` of resident
    pages, where a page that two of them share, or of a mapped file, counts for each;
    `anon` of those alone that the processes filled themselves, which no file backs.
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
    """Prepare `count` pairs of a corpus in `folder`, in a process of its own."""
    repeat_corpus(corpus, count, folder / "corpus.tsv")
    sources = [{"source": "tsv", "path": str(folder / "corpus.tsv")}]
    data = {"dir": str(folder / "out"), "sources": sources, "dev": 1000, "test": 1000}
    (folder / "config.yaml").write_text(json.dumps({"run": str(folder / "run"), "data": data}))
    command = [sys.executable, "-m", "nmt", "prepare", "--config", str(folder / "config.yaml")]
    began, used = time.perf_counter(), children_seconds()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--workers", str(workers)] if workers else [])], stderr=log
        )
        rss = anon = 0
        while process.poll() is None:
            now = tree_memory(process.pid)
            rss, anon = max(rss, now[0]), max(anon, now[1])
            time.sleep(0.1)
    seconds, cpu_seconds = time.perf_counter() - began, children_seconds() - used
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
    """Processor time of all processes started and ended, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def repeat_corpus(corpus: Path, count: int, path: Path) -> None:
    """Write `count` pairs of a corpus, over and over with another ending each time."""
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
    """Bytes resident, and those of them that no file backs, of a process and its own (Linux)."""
    rss = anon = 0
    with contextlib.suppress(OSError, KeyError):  # a process that ends meanwhile has none
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
    shape: Annotated[str, typer.Option(help=f"{', '.join(SHAPES)}; or own")] = "own",
    pieces: Annotated[int, typer.Option(help="target vocabulary, at least the run's")] = 0,
    sentences: int = 1000,
    beam: int = 5,
    batch_size: int = 64,
    int8: bool = False,
    device: str = "cpu",
    repeats: int = 5,
) -> None:
    """Translation speed on the run's dev set, latency of single sentences, BLEU, memory.

    With --shape the run's network is widened with zeros: it translates as before, at the
    cost of the larger network, so that lengths and stopping are those of a trained one.
    """
    run = Run.open(model)
    lines, references = (run.text("dev", side)[:sentences] for side in ("src", "trg"))
    sizes = SHAPES[shape] if shape != "own" else {}
    translator = Translator.load(model, device, int8=int8)
    expected = translator.translate(lines) if sizes else []
    rss_before = peak_rss()
    if sizes or pieces:
        network = widened(translator.model, run.config.model, sizes, pieces or len(run.trg))
        translator = Translator(
            network, run.src, run.trg, run.config.search, translator.device,
            translator.max_pieces, int8=int8, usual=translator.usual,
            frozen=True,
        )  # fmt: skip
    translator.search = translator.search.model_copy(update={"beam": beam})
    translations = translator.translate(lines, batch_size)  # warms up
    if sizes and not int8 and beam == run.config.search.beam:
        changed = sum(a.text != b.text for a, b in zip(translations, expected, strict=True))
        assert changed <= len(lines) // 100, f"widening changed {changed} translations"
    rates, cpu_rates, ceilings = [], [], []
    for _ in range(repeats):
        ceilings.append(matmul_rate(device=translator.device))
        began, used = time.perf_counter(), time.process_time()
        translator.translate(lines, batch_size)
        finish_work(translator.device)
        rates.append(len(lines) / (time.perf_counter() - began))
        cpu_rates.append(len(lines) / (time.process_time() - used))
    latencies = []
    for line in lines[:100]:
        began = time.perf_counter()
        translator.translate([line])
        finish_work(translator.device)
        latencies.append(time.perf_counter() - began)
    (bleu, *_) = score([t.text for t in translations], [references])
    tokens = sum(len(part.hypotheses[0].ids) + 1 for t in translations for part in t.parts)
    record = {
        "shape": shape,
        "trg_pieces": pieces or len(run.trg),
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
    name = f"translate-{shape}{'-int8' if int8 else ''}{'-cuda' if on_gpu else ''}"
    write(name, record, translator.device)


@app.command()
def gpu(
    corpus: Annotated[Path, typer.Option(help="a prepared corpus, data/base for example")],
    run: Annotated[Path | None, typer.Option(help="a trained run, to translate with")] = None,
    seconds: Annotated[float, typer.Option(help="that all of it may take")] = 520,
    only: Annotated[list[str] | None, typer.Option(help="a section; repeatable")] = None,
    output: Annotated[Path, typer.Option(help="where the numbers go")] = RESULTS / "gpu.json",
) -> None:
    """On one GPU: check every kernel and a whole update, then time them, in nine minutes."""
    from bench_gpu import run_all
    from gpu.bench import Settings

    load_manifest(corpus)
    if not torch.cuda.is_available():
        raise NmtError(
            f"bench.py gpu: PyTorch {torch.__version__} sees no GPU",
            "the kernels alone, without one: "
            "TRITON_INTERPRET=1 python scripts/gpu/kernel_checks.py --device cpu",
        )
    settings = Settings(str(corpus.resolve()), None if run is None else str(run.resolve()))
    record = run_all(settings, output, seconds, only or [])
    print(f"{output}: {record['seconds']:.0f} s")


@app.command()
def floor(
    corpus: Annotated[Path, typer.Option(help="a prepared corpus")],
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "base",
    batch_tokens: int = 32_768,
) -> None:
    """What an update on a GPU must do at the least, counted: operations and bytes."""
    from gpu.bench import Bench, Settings
    from gpu.work import counted

    bench = Bench(Settings(str(corpus), device="cpu"))
    print(json.dumps(counted(bench, shape, batch_tokens, 2)[2], indent=1))


def cold_start(model: Path, int8: bool) -> float:
    """Seconds from starting the program to the translation of one sentence; best of three."""
    command = [sys.executable, "-m", "nmt", "translate", "--model", str(model), "--device", "cpu"]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [*command, *(["--int8"] if int8 else []), "我爱中国。"],
            check=True, capture_output=True,
        )  # fmt: skip
        times.append(time.perf_counter() - began)
    return min(times)


def widened(model: Seq2Seq, config: ModelConfig, sizes: dict[str, int], pieces: int) -> Seq2Seq:
    """The same function as `model`, of larger `sizes`: what is new is zero.

    A unit of zero weights begins at 0 and stays there, an extra piece has no chance.

    Raises:
        NmtError: a norm over more units is another function.
    """
    if config.layer_norm:
        raise NmtError("a network with layer_norm has no larger twin", "--shape own")
    small = config.model_dump()
    large = {**small, **sizes}
    vocab = model.encoder.embedding.num_embeddings
    wide = Seq2Seq(vocab, pieces, ModelConfig(**large)).eval()
    # Along each side of each matrix: blocks that grow, as (now, then).
    e, h, d, a = (
        (small[k], large[k])
        for k in ("embedding_dim", "encoder_hidden", "decoder_hidden", "attention_hidden")
    )
    words = [d] * 3 + ([a] if config.attention_query == "state+word" else [])
    v, own = (len(model.decoder.output_bias), pieces), (vocab, vocab)
    blocks = {
        "encoder.embedding.weight": ([own], [e]),
        "decoder.embedding.weight": ([v], [e]),
        "decoder.attention.project.weight": ([a], [h, h]),
        "decoder.attention.project.bias": ([a],),
        "decoder.attention.score": ([a],),
        "decoder.initial.weight": ([d], [h, h]),
        "decoder.initial.bias": ([d],),
        "decoder.word_gates.weight": (words, [e]),
        "decoder.word_gates.bias": (words,),
        "decoder.context_gates.weight": ([d] * 3, [h, h]),
        "decoder.recurrent.weight": ([d, d, d, a], [d]),
        "decoder.recurrent.bias": ([d, d, d, a],),
        "decoder.readout.weight": ([e], [d, h, h, e]),
        "decoder.readout.bias": ([e],),
        "decoder.output_bias": ([v],),
    }
    if config.source_bridge:
        blocks["encoder.bridge.weight"] = ([h, h], [e])
    for name, parameter in model.encoder.gru.named_parameters(prefix="encoder.gru"):
        below = [e] if "_l0" in name else [h, h]
        columns = [below if "_ih_" in name else [h]] if parameter.dim() == 2 else []
        blocks[name] = ([h] * 3, *columns)
    given = model.state_dict()
    assert given.keys() == blocks.keys() == wide.state_dict().keys()
    with torch.no_grad():
        for name, parameter in wide.named_parameters():
            parameter.fill_(-30.0 if name == "decoder.output_bias" else 0.0)
            places = [_places(side) for side in blocks[name]]
            if len(places) == 1:
                parameter[places[0]] = given[name]
            else:
                parameter[places[0].unsqueeze(1), places[1]] = given[name]
    return wide.to(next(model.parameters()).device)


def _places(blocks: list[tuple[int, int]]) -> torch.Tensor:
    """Where the entries of an axis go when its blocks grow."""
    starts = [sum(then for _, then in blocks[:i]) for i in range(len(blocks))]
    return torch.cat(
        [start + torch.arange(now) for start, (now, _) in zip(starts, blocks, strict=True)]
    )


def matmul_rate(
    precision: torch.dtype = torch.float32,
    size: int = 2048,
    seconds: float = 0.5,
    device: torch.device | None = None,
) -> float:
    """Floating-point operations a second in a square product, now."""
    device = device or torch.device("cpu")
    a, b = torch.randn(2, size, size, device=device).to(precision)
    a @ b
    finish_work(device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ b
        finish_work(device)
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - began)


def peak_gpu(device: torch.device) -> int | None:
    """Most memory that tensors have held on a GPU, in MiB; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None


def write(name: str, record: dict[str, Any], device: torch.device | None = None) -> None:
    """Print one line and write ``docs/benchmarks/NAME.json``; `device` if it is not the CPU."""
    full = {"benchmark": name, **record, **environment(device or torch.device("cpu"))}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(full, indent=1) + "\n")
    print(name, " ".join(f"{key}={value}" for key, value in record.items()))


if __name__ == "__main__":
    cli.run(app)
