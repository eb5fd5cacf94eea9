"""How fast updates are: by their size, by network, and computed in other ways."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from shapes import SHAPES

from gpu.bench import Bench, Found, Loop, Trainer, attempt, empty_gpu
from gpu.device import ceilings
from gpu.work import counted
from nmt.data.batches import make_batch
from nmt.model.fast.kernels import REFERENCE


def measured(
    bench: Bench,
    shape: str,
    tokens: int,
    precision: torch.dtype,
    loop: Loop | None,
    *,
    recorded: bool = True,
) -> dict[str, Any]:
    """Speed of updates, batches gathered beside them, and its share of the ceilings."""
    settings = bench.settings
    top = ceilings(bench)
    empty_gpu()
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(bench.model(shape), precision, loop, recorded=recorded)
    parts = bench.plan(tokens)
    rates, hosts = [], []
    for number in range(settings.passes + 2):
        bench.wait()
        began, real, launching = time.perf_counter(), 0, 0.0
        with ThreadPoolExecutor(1) as beside:
            for batch in beside.map(lambda part: make_batch(bench.corpus, part), parts):
                real += batch.trg_tokens
                ready = time.perf_counter()
                trainer.update(batch, bench.device)
                launching += time.perf_counter() - ready
        bench.wait()
        if number > 1:  # before, kernels are compiled and launches recorded
            rates.append(real / (time.perf_counter() - began))
            hosts.append(launching / len(parts))
    rate = statistics.median(rates)
    work, real, shares = counted(bench, shape, tokens, 2 if precision == torch.bfloat16 else 4)
    flops = top[f"matmul_{str(precision).removeprefix('torch.')}_flops"]
    compute, memory = work.flops / flops, work.bytes / top["copy_bytes_per_second"]
    seconds = real / rate
    return {
        "target_tokens_per_second": round(rate),
        "slowest_and_fastest_pass": [round(min(rates)), round(max(rates))],
        "seconds_per_update": seconds / len(parts),
        "host_seconds_per_update": statistics.median(hosts),
        "utilisation": work.flops / seconds / flops,
        "floor": {
            "seconds_of_products": compute / len(parts),
            "seconds_of_memory": memory / len(parts),
            "tokens_per_second_if_one_after_the_other": round(real / (compute + memory)),
            "tokens_per_second_if_both_at_once": round(real / max(compute, memory)),
        },
        "counted": shares,
        "peak_memory_mib": (
            round(torch.cuda.max_memory_allocated() / 2**20)
            if bench.device.type == "cuda"
            else None
        ),
        "ceilings": top,
    }


def section_sweep(bench: Bench) -> Found:
    """The main shape, by the size of updates."""
    loop = bench.loop(bench.kernels)
    for tokens in bench.settings.sweep:
        yield from attempt(
            f"{tokens} tokens",
            lambda tokens=tokens: measured(
                bench, bench.settings.main, tokens, torch.bfloat16, loop
            ),
        )


def section_launched(bench: Bench) -> Found:
    """The main shape again, kernel by kernel in place of recorded."""
    for tokens in (bench.settings.sweep[0], bench.settings.tokens):
        yield from attempt(
            f"{tokens} tokens",
            lambda tokens=tokens: measured(
                bench, bench.settings.main, tokens, torch.bfloat16, bench.loop(bench.kernels),
                recorded=False,
            ),
        )  # fmt: skip


def section_shapes(bench: Bench) -> Found:
    """The other shapes."""
    for shape in bench.settings.sizes or SHAPES:
        if shape != bench.settings.main:
            yield from attempt(
                shape,
                lambda shape=shape: measured(
                    bench, shape, bench.settings.tokens, torch.bfloat16, bench.loop(bench.kernels)
                ),
            )


def section_variants(bench: Bench) -> Found:
    """Other ways to compute the same: what each choice is worth."""
    settings = bench.settings
    ways: list[tuple[str, torch.dtype, Loop, bool]] = [
        ("plain kernels", torch.bfloat16, bench.loop(REFERENCE), True),
        ("float32", torch.float32, bench.loop(bench.kernels), True),
        ("sums in any order", torch.bfloat16, bench.loop(bench.kernels), False),
    ]
    for name, precision, loop, ordered in ways:

        def way(
            precision: torch.dtype = precision, loop: Loop = loop, ordered: bool = ordered
        ) -> dict[str, Any]:
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(before and ordered, warn_only=True)
            try:
                return measured(bench, settings.main, settings.tokens, precision, loop)
            finally:
                torch.use_deterministic_algorithms(before, warn_only=True)

        yield from attempt(name, way)
