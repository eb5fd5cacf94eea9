"""Speed of training updates."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from gpu.device import ceilings
from gpu.harness import Bench, Results, Trainer, attempt, empty_gpu
from gpu.work import counted
from nmt.data.batches import make_batch
from nmt.model.fast.kernels import Kernels


def measured(
    bench: Bench,
    shape: str,
    tokens: int,
    precision: torch.dtype,
    kernels: Kernels | None,
    *,
    recorded: bool = True,
) -> dict[str, Any]:
    """Measure updates, with batches prepared in a thread, against the limits of the device."""
    settings = bench.settings
    limits = ceilings(bench)
    empty_gpu()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(bench.model(shape), precision, kernels, recorded=recorded)
    parts = bench.plan(tokens)
    rates, hosts = [], []
    for number in range(settings.passes + 2):
        bench.wait()
        start, real, launching = time.perf_counter(), 0, 0.0
        with ThreadPoolExecutor(1) as pool:
            for batch in pool.map(lambda part: make_batch(bench.corpus, part), parts):
                real += batch.trg_tokens
                ready = time.perf_counter()
                trainer.update(batch, bench.device)
                launching += time.perf_counter() - ready
        bench.wait()
        if number > 1:  # earlier passes compile kernels and capture graphs
            rates.append(real / (time.perf_counter() - start))
            hosts.append(launching / len(parts))
    rate = statistics.median(rates)
    work, real, shares = counted(bench, shape, tokens, 2 if precision == torch.bfloat16 else 4)
    flops = limits[f"matmul_{str(precision).removeprefix('torch.')}_flops"]
    compute, memory = work.flops / flops, work.bytes / limits["copy_bytes_per_second"]
    seconds = real / rate
    return {
        "target_tokens_per_second": round(rate),
        "slowest_and_fastest_pass": [round(min(rates)), round(max(rates))],
        "seconds_per_update": seconds / len(parts),
        "host_seconds_per_update": statistics.median(hosts),
        "utilisation": work.flops / seconds / flops,
        "lower_bound": {
            "seconds_of_products": compute / len(parts),
            "seconds_of_memory": memory / len(parts),
            "tokens_per_second_sequential": round(real / (compute + memory)),
            "tokens_per_second_overlapped": round(real / max(compute, memory)),
        },
        "counted": shares,
        "peak_memory_mib": (
            round(torch.cuda.max_memory_allocated() / 2**20)
            if bench.device.type == "cuda"
            else None
        ),
        "ceilings": limits,
    }


def section_sweep(bench: Bench) -> Results:
    """Measure the main shape by tokens per update."""
    for tokens in bench.settings.sweep:
        yield from attempt(
            f"{tokens} tokens",
            lambda tokens=tokens: measured(
                bench, bench.settings.main, tokens, torch.bfloat16, bench.kernels
            ),
        )


def section_launched(bench: Bench) -> Results:
    """Measure the main shape without CUDA graphs."""
    for tokens in (bench.settings.sweep[0], bench.settings.tokens):
        yield from attempt(
            f"{tokens} tokens",
            lambda tokens=tokens: measured(
                bench, bench.settings.main, tokens, torch.bfloat16, bench.kernels,
                recorded=False,
            ),
        )  # fmt: skip
