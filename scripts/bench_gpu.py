#!/usr/bin/env python3
"""What `scripts/bench.py gpu` measures, in sections.

Each section runs in a process of its own with a time limit: one that fails, hangs or takes
the GPU down with it costs its own numbers only, and what it had found by then is kept. A
section is a generator of (name, result); a variant that fails gives its error in place of a
result. They stand in the order of what is most worth knowing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from kernel_checks import SMALL, Sizes, cases, checks
from shapes import PIECES, SHAPES
from torch import Tensor

from nmt.batches import Batch, Indices, make_batch, plan_epoch
from nmt.corpus import PackedSet
from nmt.errors import NmtError
from nmt.model import Seq2Seq, recurrence, recurrence_cuda, seq2seq
from nmt.model.kernels import PLAIN, Kernels, OnTriton, why_not_triton
from nmt.model.recurrence_graphs import Graphs
from nmt.prepare.pipeline import load_manifest
from nmt.runtime import compute_reproducibly
from nmt.symbols import PAD
from nmt.train.journal import environment, read_journal
from nmt.train.loss import batch_loss

Found = Iterator[tuple[str, Any]]
Loop = Callable[..., tuple[Tensor, Tensor, Tensor]]
HERE = Path(__file__).resolve()


@dataclass(frozen=True)
class Settings:
    """Of a whole benchmark; the defaults are those for a GPU, a test takes tiny ones.

    Attributes:
        corpus: a prepared corpus.
        run: a trained run to translate with, if there is one.
        device: what everything runs on; on a CPU plain kernels take the place of Triton's.
        sizes: by name of shape.
        pieces: smallest vocabulary by name of shape; a corpus with more has its way.
        main: the shape that is looked at most closely.
        tokens: target tokens in an update of it.
        sweep: the same, how it depends on them.
        updates: in a pass; each is timed twice or more after one that warms up.
        passes: that are timed.
        matmul: rows, columns and depth of the product that gives the ceiling.
        copy_mib: size of the copy that gives the other.
        repeats: of a kernel that is timed.
        check_sizes: at which kernels are compared with their twins.
        train_updates: of the whole program, in the comparison of stopping and not stopping.
    """

    corpus: str
    run: str | None = None
    device: str = "cuda"
    sizes: dict[str, dict[str, int]] | None = None
    pieces: dict[str, int] | None = None
    main: str = "base"
    tokens: int = 32_768
    sweep: tuple[int, ...] = (4_096, 8_192, 16_384, 65_536)
    updates: int = 16
    passes: int = 4
    matmul: int = 8_192
    copy_mib: int = 2_048
    repeats: int = 30
    check_sizes: tuple[tuple[int, ...], ...] = (
        (300, 9, 4, 1024, 1024, 1024),
        (64, 48, 3, 1000, 2000, 1000),
    )
    train_updates: int = 40

    def shape(self, name: str) -> dict[str, int]:
        """Sizes of a network."""
        return (self.sizes or SHAPES)[name]


class Bench:
    """What the sections share: the corpus, and how an update is made and timed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        compute_reproducibly(self.device)
        self.kernels: Kernels = OnTriton() if self.device.type == "cuda" else PLAIN
        self.corpus = PackedSet.open(Path(settings.corpus), "train")
        manifest = load_manifest(Path(settings.corpus))
        self.vocab = [manifest["tokenizers"][side]["pieces"] for side in ("src", "trg")]

    def pieces(self, shape: str) -> tuple[int, int]:
        """Source and target vocabulary of a shape's network."""
        least = (self.settings.pieces or PIECES)[shape]
        return max(least, self.vocab[0]), max(least, self.vocab[1])

    def model(self, shape: str, dropout: float = 0.2) -> Seq2Seq:
        """A network with random weights, always the same ones."""
        torch.manual_seed(1)
        return self.network(shape, dropout).to(self.device)

    def network(self, shape: str, dropout: float) -> Seq2Seq:
        """A network of a shape."""
        src, trg = self.pieces(shape)
        return Seq2Seq(
            src_vocab=src, trg_vocab=trg, attention="additive", encoder_layers=1,
            dropout=dropout, word_dropout=dropout / 2, **self.settings.shape(shape),
        )  # fmt: skip

    def plan(self, tokens: int) -> list[Indices]:
        """Sentences of some updates, the longest source of each first as in training."""
        lengths = self.corpus.src.lengths
        plan = [block for (block,) in plan_epoch(lengths, self.corpus.trg.lengths, tokens, 1, 0)]
        chosen = [plan[i % len(plan)] for i in range(self.settings.updates)]
        return [part[np.argsort(-lengths[part], kind="stable")] for part in chosen]

    def batch(self, part: Indices) -> Batch:
        """On the device, without waiting."""
        return make_batch(self.corpus, part).to(self.device)

    def wait(self) -> None:
        """For the device to have done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def loop(self, kernels: Kernels) -> Loop:
        """The GPU's recurrence on some kernels."""
        return functools.partial(recurrence_cuda.recurrence, kernels=kernels)


@contextlib.contextmanager
def through(loop: Loop | None) -> Iterator[None]:
    """Within, the recurrence of the network is `loop`; None: the program's own choice."""
    if loop is None:
        yield
        return
    with (
        mock.patch.object(recurrence_cuda, "is_for", lambda tensor: tensor is not None),
        mock.patch.object(recurrence_cuda, "recurrence", loop),
    ):
        yield


class Trainer:
    """Updates as `nmt train` makes them, without its bookkeeping."""

    def __init__(self, model: Seq2Seq, precision: torch.dtype, loop: Loop | None) -> None:
        self.model, self.precision, self.loop = model.train(), precision, loop
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def gradient(self, batch: Batch, mark: Callable[[str], None] = lambda _: None) -> Tensor:
        """Set the gradients; returns the loss in nats per token, on the device."""
        kind, rounds = batch.src.device.type, self.precision != torch.float32
        with through(self.loop):
            with torch.autocast(kind, self.precision, enabled=rounds):
                loss = batch_loss(self.model, batch, 0.1)
            mark("readout, output layer and loss (with its own gradient)")
            torch.autograd.backward(loss.smoothed / batch.trg_tokens)
        return loss.plain / batch.trg_tokens

    def step(self, mark: Callable[[str], None] = lambda _: None) -> None:
        """Clip and apply the gradients."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        mark("clipping")
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark("optimizer")

    def update(self, batch: Batch) -> None:
        """One update; waits for nothing."""
        self.gradient(batch)
        self.step()


def attempt(name: str, function: Callable[[], Any]) -> Found:
    """A result under its name; what went wrong, if something did."""
    try:
        yield name, function()
    except Exception:  # the next variant may work, and this one's error is worth knowing
        yield name, {"error": traceback.format_exc(limit=-6)[-3000:]}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- what the device can do -----------------------------------------------------------


def ceilings(bench: Bench) -> dict[str, float]:
    """Operations a second of a large product, and bytes a second of a large copy."""
    found = {}
    size = bench.settings.matmul
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(size, size, device=bench.device, dtype=dtype)
        b = torch.randn(size, size, device=bench.device, dtype=dtype)
        seconds = timed(bench, lambda a=a, b=b: torch.mm(a, b), 8)
        found[f"matmul_{str(dtype).removeprefix('torch.')}_flops"] = 2 * size**3 / seconds
    a = torch.zeros(bench.settings.copy_mib << 18, device=bench.device)
    b = torch.empty_like(a)
    found["copy_bytes_per_second"] = 8 * a.numel() / timed(bench, lambda: b.copy_(a), 8)
    return found


def timed(bench: Bench, function: Callable[[], Any], repeats: int) -> float:
    """Seconds of a function on the device: median, each between two events."""
    for _ in range(3):
        function()
    if bench.device.type != "cuda":
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
        return statistics.median(times)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in events:
        begin.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) / 1e3 for begin, end in events)


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def products_of_a_step(bench: Bench) -> dict[str, Any]:
    """The products of one step at the main shape: what of the ceiling they reach alone."""
    shape, found = bench.settings.shape(bench.settings.main), {}
    h, units, states = shape["decoder"], shape["attention_size"], 2 * shape["encoder"]
    for rows in (256, 1024, 4096):
        for name, out, inner in (("state", 3 * h + units, h), ("context", 3 * h, states)):
            x = torch.randn(rows, inner, device=bench.device, dtype=torch.bfloat16)
            w = torch.randn(out, inner, device=bench.device, dtype=torch.bfloat16)
            y = torch.empty(rows, out, device=bench.device, dtype=torch.bfloat16)
            seconds = timed(bench, lambda x=x, w=w, y=y: torch.mm(x, w.t(), out=y), 20)
            found[f"{name}, {rows} rows"] = {
                "microseconds": seconds * 1e6, "flops": 2 * rows * out * inner / seconds,
            }  # fmt: skip
    return found


# ---- what an update must do at the least ----------------------------------------------


@dataclass(frozen=True)
class Work:
    """Of an update, counted by formula.

    Attributes:
        flops: multiply-adds times two of all products with weights and of the attention's
            sums, forward and backward (three times forward), of real tokens.
        recurrence_bytes: that the kernels and products of the time loop move, if every
            tensor is read and written once where it is used, weights once a step.
        logits_bytes: of scores and their gradients, written and read once each.
        weights_bytes: of gradients, clipping and Adam.
        tanhs: of the attention, in forward, in backward and in `look_finish`.
    """

    flops: float
    recurrence_bytes: float
    logits_bytes: float
    weights_bytes: float
    tanhs: float

    @property
    def bytes(self) -> float:
        """All that is counted; embeddings, encoder and readout are not."""
        return self.recurrence_bytes + self.logits_bytes + self.weights_bytes

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def work_of(
    shape: dict[str, int], pieces: int, parameters: int, batch: Batch, kept: int = 2
) -> Work:
    """Count the work of an update.

    Args:
        shape: of the network.
        pieces: target vocabulary.
        parameters: how many weights there are.
        batch: on the CPU.
        kept: bytes of a number in a product.
    """
    e, h, d, u = (shape[k] for k in ("embedding", "encoder", "decoder", "attention_size"))
    states = 2 * h
    assert batch.src_lengths is not None
    src_lengths = batch.src_lengths.double()
    trg_lengths = (batch.trg_out != PAD).sum(dim=1).double()
    src, trg = float(src_lengths.sum()), float(batch.trg_tokens)
    steps, rows = batch.trg_out.shape[1], float(len(batch.trg_out))
    looks = float((src_lengths * trg_lengths).sum())  # pairs of a real source and target token
    multiply_adds = (
        src * (2 * 3 * h * (e + h) + states * u)
        + trg * (3 * d * (e + states + d) + d * u)
        + looks * (u + states)
        + trg * (e * (d + states + e) + pieces * e)
    )
    out, cells = 3 * d + u, rows * steps  # padding is computed in the time loop
    exact = 4
    looked = src * steps * (u + states) * kept  # keys and encoder states, once a step
    weights = steps * (out * d + 3 * d * states) * kept
    forward = cells * kept * (
        (d + out) + (u + states) + (states + 3 * d) + (9 * d + 4 * d)
    ) + cells * exact * 2 * d + src * steps * exact + looked + weights  # fmt: skip
    backward = cells * kept * (
        (7 * d + 6 * d) + (3 * d + 2 * states) + (states + 2 * u) + (out + d)
    ) + cells * exact * 2 * d + src * steps * exact * 2 + looked + weights  # fmt: skip
    after = (
        cells * kept * (out + d + 3 * d + states)  # gradients of weights
        + cells * kept * (u + states) + 2 * src * (u + states) * kept  # look_finish, spread
    )  # fmt: skip
    return Work(
        flops=3 * 2 * multiply_adds,
        recurrence_bytes=forward + backward + after,
        logits_bytes=trg * pieces * kept * 4,
        weights_bytes=parameters * 4.0 * (1 + 3 + 7),  # written; read, scaled; Adam: 4 in, 3 out
        tanhs=3.0 * src * steps * u,
    )


# ---- sections ---------------------------------------------------------------------------


def section_ceilings(bench: Bench) -> Found:
    """What the device can do, and what Triton needs besides it."""
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


def section_checks(bench: Bench) -> Found:
    """Every kernel against its twin, at odd and at real sizes."""
    sizes = SMALL + tuple(Sizes(*numbers) for numbers in bench.settings.check_sizes)
    failed, count = [], 0
    worst: dict[str, float] = {}
    for outcome in checks(sizes, bench.device, kernels=bench.kernels):
        count += 1
        if not outcome.passed:
            failed.append(outcome.record())
        if outcome.error is not None:
            key = f"{outcome.what} {outcome.dtype}"
            worst[key] = max(worst.get(key, 0.0), outcome.error)
        if count % 10 == 0:
            yield "kernels", {"compared": count, "failed": failed, "largest_error": worst}
    yield "kernels", {"compared": count, "failed": failed, "largest_error": worst}


def section_update(bench: Bench) -> Found:
    """Loss and gradients of a whole update by every path, against the CPU's in float32."""
    part = bench.plan(2048)[0]
    shape = "small" if "small" in (bench.settings.sizes or SHAPES) else bench.settings.main

    def gradients(bench: Bench, precision: torch.dtype, loop: Loop | None) -> dict[str, Tensor]:
        model = bench.model(shape, dropout=0.0)
        loss = Trainer(model, precision, loop).gradient(bench.batch(part))
        found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        return {"loss": loss.detach().cpu(), **found}

    expected = gradients(Bench(replace(bench.settings, device="cpu")), torch.float32, None)

    paths: list[tuple[str, torch.dtype, Loop | None, float]] = [
        ("plain, float32", torch.float32, bench.loop(PLAIN), 1e-2),
        ("kernels, float32", torch.float32, bench.loop(bench.kernels), 1e-2),
        ("plain, bfloat16", torch.bfloat16, bench.loop(PLAIN), 1e-1),
        ("kernels, bfloat16", torch.bfloat16, bench.loop(bench.kernels), 1e-1),
        ("graphs, bfloat16", torch.bfloat16, Graphs(bench.kernels).recurrence, 1e-1),
        ("the program's own choice, bfloat16", torch.bfloat16, None, 1e-1),
    ]
    for name, precision, loop, tolerance in paths:

        def compared(
            precision: torch.dtype = precision, loop: Loop | None = loop, most: float = tolerance
        ) -> dict[str, Any]:
            found = gradients(bench, precision, loop)
            again = gradients(bench, precision, loop)
            apart = {key: relative_error(found[key], expected[key]) for key in expected}
            largest = max(apart, key=lambda key: apart[key])
            return {
                "loss": float(found["loss"]),
                "expected": float(expected["loss"]),
                "largest_relative_error": apart[largest],
                "where": largest,
                "passed": apart[largest] <= most,
                "same_bits_again": all(torch.equal(found[key], again[key]) for key in found),
            }

        yield from attempt(name, compared)

    def step_loop() -> dict[str, Any]:
        with mock.patch.object(seq2seq, "unroll", recurrence.unroll_by_step):
            found = gradients(bench, torch.float32, None)
        apart = [relative_error(found[key], expected[key]) for key in expected]
        return {"largest_relative_error": max(apart)}

    yield from attempt("step by step, float32", step_loop)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Length of the difference, as a share of the length of what was expected."""
    apart = (found.double() - expected.double()).norm()
    return float(apart / expected.double().norm().clamp_min(1e-30))


def measured(
    bench: Bench, shape: str, tokens: int, precision: torch.dtype, loop: Loop | None
) -> dict[str, Any]:
    """Speed of updates, batches gathered on the way, and its share of the ceilings."""
    settings = bench.settings
    top = ceilings(bench)
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(bench.model(shape), precision, loop)
    parts = bench.plan(tokens)
    rates, hosts = [], []
    for number in range(settings.passes + 1):
        bench.wait()
        began, real = time.perf_counter(), 0
        for part in parts:
            batch = bench.batch(part)
            real += batch.trg_tokens
            trainer.update(batch)
        launched = time.perf_counter() - began
        bench.wait()
        if number:  # the first pass compiles, records and allocates
            rates.append(real / (time.perf_counter() - began))
            hosts.append(launched / len(parts))
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


def counted(bench: Bench, shape: str, tokens: int, kept: int) -> tuple[Work, int, dict[str, Any]]:
    """Work of a pass and its real target tokens, and both as shares for JSON; no device needed."""
    batches = [make_batch(bench.corpus, part) for part in bench.plan(tokens)]
    sizes, pieces = bench.settings.shape(shape), bench.pieces(shape)[1]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in bench.network(shape, 0.0).parameters())
    work = functools.reduce(
        Work.__add__, (work_of(sizes, pieces, parameters, batch, kept) for batch in batches)
    )
    real = sum(batch.trg_tokens for batch in batches)
    return work, real, {
        "parameters": parameters,
        "target_pieces": pieces,
        "sentences_per_update": sum(len(batch.src) for batch in batches) / len(batches),
        "steps_per_update": sum(batch.trg_out.shape[1] for batch in batches) / len(batches),
        "source_tokens_per_target_token": sum(int(b.src_mask.sum()) for b in batches) / real,
        "target_padding": 1 - real / sum(batch.trg_out.numel() for batch in batches),
        "mflop_per_target_token": work.flops / real / 1e6,
        "bytes_per_target_token": {
            "recurrence": work.recurrence_bytes / real,
            "logits": work.logits_bytes / real,
            "weights": work.weights_bytes / real,
        },
        "tanhs_per_target_token": work.tanhs / real,
    }  # fmt: skip


def section_main(bench: Bench) -> Found:
    """The main shape: speed, phases, and which kernels take the time."""
    settings, low = bench.settings, torch.bfloat16
    loop = bench.loop(bench.kernels)
    name = f"{settings.main}, {settings.tokens} tokens"
    yield from attempt(name, lambda: measured(bench, settings.main, settings.tokens, low, loop))
    yield from attempt("phases", lambda: phases(bench, loop))
    yield from attempt("profile", lambda: profile(bench, loop))


def phases(bench: Bench, loop: Loop) -> dict[str, Any]:
    """Milliseconds of an update by phase, medians over the updates of a pass."""
    settings = bench.settings
    trainer = Trainer(bench.model(settings.main), torch.bfloat16, loop)
    found: dict[str, list[float]] = {}
    for number in range(2):
        for part in bench.plan(settings.tokens):
            clock = Clock(bench)
            batch = bench.batch(part)
            clock.mark("")

            def unroll(
                decoder: Any, word_gates: Tensor, *rest: Any, clock: Clock = clock
            ) -> tuple[Tensor, Tensor, Tensor]:
                clock.mark("encoder, embeddings, keys")
                word_gates.register_hook(lambda _: clock.mark("recurrence, backward"))
                outputs = recurrence.unroll(decoder, word_gates, *rest)
                outputs[0].register_hook(lambda _: clock.mark("readout, backward"))
                clock.mark("recurrence, forward")
                return outputs

            with mock.patch.object(seq2seq, "unroll", unroll):
                trainer.gradient(batch, clock.mark)
            clock.mark("encoder, embeddings, keys, backward")
            trainer.step(clock.mark)
            if number:
                for name, milliseconds in clock.durations():
                    found.setdefault(name, []).append(milliseconds)
    return {name: statistics.median(times) for name, times in found.items()}


class Clock:
    """Marks between phases, on the device's own time."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """`name` ends here."""
        if self.bench.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def durations(self) -> list[tuple[str, float]]:
        """Milliseconds of each phase, in order; waits for the device."""
        self.bench.wait()
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.bench.device.type == "cuda":
            return [(name, before.elapsed_time(at)) for (_, before), (name, at) in pairs]
        return [(name, (at - before) * 1e3) for (_, before), (name, at) in pairs]


def profile(bench: Bench, loop: Loop) -> list[dict[str, Any]]:
    """What the device spent its time on in three updates: kernels, the longest first."""
    settings = bench.settings
    trainer = Trainer(bench.model(settings.main), torch.bfloat16, loop)
    batches = [bench.batch(part) for part in bench.plan(settings.tokens)[:3]]
    for batch in batches:
        trainer.update(batch)
    bench.wait()
    with torch.profiler.profile() as profiled:
        for batch in batches:
            trainer.update(batch)
        bench.wait()
    rows = []
    for event in profiled.key_averages():
        spent = getattr(event, "self_device_time_total", 0) or 0
        if bench.device.type != "cuda":
            spent = event.self_cpu_time_total
        elif str(getattr(event, "device_type", "")).endswith("CPU"):
            continue  # what was launched, not what ran
        rows.append({"kernel": event.key[:120], "calls": event.count, "microseconds": spent})
    return sorted(rows, key=lambda row: -row["microseconds"])[:40]


def section_kernels(bench: Bench) -> Found:
    """Each kernel against its plain twin, in time; sizes of tiles."""
    settings = bench.settings
    shape = settings.shape(settings.main)
    widths = (shape["attention_size"], 2 * shape["encoder"], shape["decoder"])
    typical = make_batch(bench.corpus, bench.plan(settings.tokens)[0])
    rows, src_len, steps = len(typical.src), typical.src.shape[1], typical.trg_out.shape[1]
    for sizes in (Sizes(rows, src_len, steps, *widths), Sizes(-(-rows // 6), 48, 8, *widths)):
        made = cases(sizes, bench.device, torch.bfloat16)
        for name, case in made.items():
            if name in ("look_backward_both", "gates_alone"):
                continue

            def both(case: Any = case, name: str = name, sizes: Sizes = sizes) -> dict[str, Any]:
                buffers, repeats = case.buffers(), settings.repeats
                fast = timed(bench, lambda: case.run(bench.kernels, *buffers), repeats)
                plain = timed(bench, lambda: case.run(PLAIN, *buffers), max(2, repeats // 6))
                tiles = {}
                if bench.device.type == "cuda" and name.startswith(("look", "spread")):
                    for tile, warps in ((2048, 4), (4096, 8), (8192, 4), (8192, 8), (16384, 8)):
                        kernels = OnTriton(tile, warps)
                        tiles[f"{tile}, {warps} warps"] = 1e6 * timed(
                            bench, lambda kernels=kernels: case.run(kernels, *buffers), 10
                        )
                return {
                    "microseconds": fast * 1e6,
                    "plain_microseconds": plain * 1e6,
                    "bytes": kernel_bytes(name, sizes),
                    "bytes_per_second": kernel_bytes(name, sizes) / fast,
                    "other_tiles_microseconds": tiles,
                }

            label = f"{name}, {sizes.batch} sentences of {sizes.src_len}, {sizes.trg_len} steps"
            yield from attempt(label, both)


def kernel_bytes(name: str, sizes: Sizes, kept: int = 2) -> int:
    """What a kernel must move at the least; lengths random, half of the longest on average."""
    rows, u, states, h = sizes.batch, sizes.units, sizes.states, sizes.hidden
    source = rows * (sizes.src_len + 1) // 2
    return {
        "look": source * (u + states) * kept + rows * (u + states) * kept + source * 4,
        "look_backward": source * (u + states) * kept + rows * (2 * u + states) * kept + source * 8,
        "look_finish": 2 * source * u * kept + sizes.trg_len * (rows * u * kept + source * 4),
        "spread": source * states * kept + sizes.trg_len * (rows * states * kept + source * 4),
        "cross_entropy": rows * (3 * u + 1) * 3 * kept,
        "gates": rows * h * (13 * kept + 8),
        "gates_backward": rows * h * (13 * kept + 8),
    }[name]


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


def section_graphs(bench: Bench) -> Found:
    """The time loop recorded as CUDA graphs."""
    for tokens in (bench.settings.sweep[0], bench.settings.tokens):

        def replayed(tokens: int = tokens) -> dict[str, Any]:
            graphs = Graphs(bench.kernels, most=20)
            found = measured(bench, bench.settings.main, tokens, torch.bfloat16, graphs.recurrence)
            return {"buckets": len(graphs.buckets), **found}

        yield from attempt(f"{tokens} tokens", replayed)


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
        ("plain kernels", torch.bfloat16, bench.loop(PLAIN), True),
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


def section_train(bench: Bench) -> Found:
    """The program itself: its speed, and whether stopping and going on gives the same bits."""
    settings = bench.settings
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        most, half = settings.train_updates, settings.train_updates // 2
        pair = folder / "unread.tsv"  # the corpus is prepared; a configuration names a source
        pair.write_text("一\tone\n", encoding="utf-8")

        def train(run: str, updates: int) -> float:
            tree = {
                "run": str(folder / run),
                "data": {"dir": settings.corpus, "sources": [{"source": "tsv", "path": str(pair)}]},
                "model": settings.shape(settings.main),
                "train": {
                    "batch_tokens": settings.tokens // 2, "max_updates": updates, "epochs": 1000,
                    "schedule": "constant", "validate_every": 1000, "validate_sentences": 8,
                    "samples": 0,
                },
            }  # fmt: skip
            config = folder / "config.yaml"
            config.write_text(json.dumps(tree), encoding="utf-8")
            began = time.perf_counter()
            command = [sys.executable, "-m", "nmt", "train", "--config", str(config)]
            done = subprocess.run(
                [*command, "--device", settings.device], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            (folder / f"{run}.log").write_text(done.stderr)
            return time.perf_counter() - began

        def bits(run: str) -> dict[str, str]:
            (newest,) = sorted((folder / run / "checkpoints").iterdir())[-1:]
            return {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(newest.glob("*.safetensors"))
            }

        def undisturbed() -> dict[str, Any]:
            seconds = train("whole", most)
            logs = [record for record in read_journal(folder / "whole") if record["kind"] == "log"]
            said = (folder / "whole.log").read_text().splitlines()
            return {
                "seconds": seconds, "log": logs[-1:],
                "said": [line for line in said if line.startswith(("recurrence", "precision"))],
            }  # fmt: skip

        def stopped() -> dict[str, Any]:
            train("parts", half)
            train("parts", most)
            return {"same_bits": bits("parts") == bits("whole"), "files": len(bits("whole"))}

        yield from attempt("undisturbed", undisturbed)
        yield from attempt("stopped and gone on", stopped)


def section_translate(bench: Bench) -> Found:
    """Translation, if there is a trained run."""
    if bench.settings.run is None:
        yield "translate", {"skipped": "no --run"}
        return

    def translated() -> Any:
        before = time.time()
        command = [sys.executable, str(HERE.parent / "bench.py"), "translate", "--repeats", "2"]
        subprocess.run(
            [*command, "--model", str(bench.settings.run), "--device", bench.settings.device,
             "--batch-size", "256"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = [
            p for p in Path("docs/benchmarks").glob("translate-*") if p.stat().st_mtime > before
        ]
        return json.loads(found[0].read_text())

    yield from attempt("translate", translated)


# In the order of what is most worth knowing, with the most seconds each may take.
SECTIONS: dict[str, tuple[Callable[[Bench], Found], int]] = {
    "ceilings": (section_ceilings, 60),
    "checks": (section_checks, 150),
    "update": (section_update, 90),
    "main": (section_main, 90),
    "kernels": (section_kernels, 90),
    "sweep": (section_sweep, 90),
    "train": (section_train, 120),
    "graphs": (section_graphs, 90),
    "variants": (section_variants, 60),
    "shapes": (section_shapes, 60),
    "translate": (section_translate, 60),
}
_START_SECONDS = 10  # of a section's process, before it has measured anything


# ---- running them -----------------------------------------------------------------------


def run_section(name: str, settings: Settings, path: Path) -> None:
    """Run one section here; `path` holds what was found after each step."""
    found: dict[str, Any] = {}
    began = time.perf_counter()
    function, _ = SECTIONS[name]
    try:
        for key, value in function(Bench(settings)):
            found[key] = value
            path.write_text(json.dumps(found))
    except Exception:
        found["error"] = traceback.format_exc(limit=-6)[-3000:]
    found["section_seconds"] = round(time.perf_counter() - began, 1)
    path.write_text(json.dumps(found))


def run_apart(name: str, settings: Settings, path: Path, seconds: float) -> None:
    """Run one section in a process of its own, no longer than `seconds`."""
    path.unlink(missing_ok=True)
    asked = path.with_suffix(".settings")
    asked.write_text(json.dumps(asdict(settings)))
    log = path.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(HERE), name, str(asked), str(path)],
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        error = None
        try:
            if process.wait(seconds):
                error = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and the programs that it started
            process.wait()
    if error is not None:
        found = json.loads(path.read_text()) if path.exists() else {}
        said = log.read_text(errors="replace")[-3000:]
        path.write_text(json.dumps({**found, "error": f"{error}\n{said}"}))


def run_all(
    settings: Settings, output: Path, seconds: float, only: list[str], *, apart: bool = True
) -> dict[str, Any]:
    """Run the sections while there is time; `output` is written after each.

    Raises:
        NmtError: an unknown section.
    """
    for name in only:
        if name not in SECTIONS:
            raise NmtError(f"--only {name}: no such section", f"one of: {', '.join(SECTIONS)}")
    deadline = time.monotonic() + seconds
    record: dict[str, Any] = {
        "benchmark": "gpu",
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("corpus", "run")},
        "corpus": Path(settings.corpus).name,
        **environment(torch.device(settings.device)),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, most) in SECTIONS.items():
            if only and name not in only:
                continue
            path = Path(folder) / f"{name}.json"
            left = deadline - time.monotonic()
            if left < _START_SECONDS:
                record[name] = {"skipped": f"{max(left, 0):.0f} s were left"}
            elif apart:
                run_apart(name, settings, path, min(most, left))
            else:
                run_section(name, settings, path)
            if path.exists():
                record[name] = json.loads(path.read_text())
            record["seconds"] = round(seconds - (deadline - time.monotonic()), 1)
            output.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}: {summary(record[name])}", flush=True)
    return record


def summary(found: dict[str, Any]) -> str:
    """One line for the terminal."""
    results = {key: value for key, value in found.items() if isinstance(value, dict)}
    rate = "target_tokens_per_second"
    rates = {key: value[rate] for key, value in results.items() if rate in value}
    errors = [key for key, value in results.items() if "error" in value]
    wrong = [key for key, value in results.items() if value.get("passed") is False]
    parts = [f"{key} {rate:,} tokens/s" for key, rate in rates.items()]
    if "error" in found:
        parts.append("FAILED: " + str(found["error"]).strip().splitlines()[-1][:200])
    if "skipped" in found:
        parts.append(f"skipped, {found['skipped']}")
    if "kernels" in found and "compared" in found["kernels"]:
        kernels = found["kernels"]
        parts.append(f"{kernels['compared']} compared, {len(kernels['failed'])} differ")
    parts += [f"differs: {key}" for key in wrong] + [f"failed: {key}" for key in errors]
    return "; ".join(parts) or "done"


if __name__ == "__main__":
    _name, _settings, _path = sys.argv[1:]
    run_section(_name, Settings(**json.loads(Path(_settings).read_text())), Path(_path))
