"""Limits of the device: a large product, a large copy, the products of a step."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import statistics
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu.harness import Bench, Results, attempt
from nmt.model.fast.triton_launch import why_not_triton


def section_ceilings(bench: Bench) -> Results:
    """Measure the limits of the device and check what Triton needs."""
    yield (
        "tools",
        {
            "triton": _version("triton"),
            "c_compiler": shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"),
            "python_headers": (Path(sysconfig.get_path("include")) / "Python.h").exists(),
            "why_not_triton": why_not_triton(torch.zeros(1, device=bench.device)),
            "cudnn": torch.backends.cudnn.version(),
        },
    )
    yield from attempt("ceilings", lambda: ceilings(bench))
    yield from attempt("products of a step", lambda: products_of_a_step(bench))


def ceilings(bench: Bench) -> dict[str, float]:
    """Return the FLOP/s of a large product and the bytes/s of a large copy."""
    rates = {}
    size = bench.settings.matmul
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(size, size, device=bench.device, dtype=dtype)
        b = torch.randn(size, size, device=bench.device, dtype=dtype)
        seconds = timed(bench, lambda a=a, b=b: torch.mm(a, b), 8)
        rates[f"matmul_{str(dtype).removeprefix('torch.')}_flops"] = 2 * size**3 / seconds
    a = torch.zeros(bench.settings.copy_mib << 18, device=bench.device)
    b = torch.empty_like(a)
    rates["copy_bytes_per_second"] = 8 * a.numel() / timed(bench, lambda: b.copy_(a), 8)
    return rates


def products_of_a_step(bench: Bench) -> dict[str, Any]:
    """Measure the products of one step at the main shape."""
    shape, results = bench.settings.shape(bench.settings.main), {}
    h, units, states = (
        shape["decoder_hidden"],
        shape["attention_hidden"],
        2 * shape["encoder_hidden"],
    )
    for rows in (256, 1024, 4096):
        for name, out, inner in (("state", 3 * h + units, h), ("context", 3 * h, states)):
            x = torch.randn(rows, inner, device=bench.device, dtype=torch.bfloat16)
            w = torch.randn(out, inner, device=bench.device, dtype=torch.bfloat16)
            y = torch.empty(rows, out, device=bench.device, dtype=torch.bfloat16)
            seconds = timed(bench, lambda x=x, w=w, y=y: torch.mm(x, w.t(), out=y), 20)
            results[f"{name}, {rows} rows"] = {
                "microseconds": seconds * 1e6, "flops": 2 * rows * out * inner / seconds,
            }  # fmt: skip
    return results


def timed(bench: Bench, function: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of a function on the device."""
    for _ in range(3):
        function()
    if bench.device.type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) / 1e3 for start, end in events)


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
