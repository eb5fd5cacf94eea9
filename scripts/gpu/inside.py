"""Where the time of an update goes: by phase, by kernel, and each kernel alone."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gpu.bench import Bench, Found, Loop, Trainer, attempt
from gpu.device import timed
from gpu.kernel_checks import Sizes, cases
from gpu.speed import measured
from gpu.work import kernel_bytes
from nmt.data.batches import make_batch
from nmt.model import seq2seq
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import REFERENCE
from nmt.model.fast.triton_launch import TritonKernels


def section_main(bench: Bench) -> Found:
    """The main shape: speed, phases, and which kernels take the time."""
    settings, low = bench.settings, torch.bfloat16
    loop = bench.loop(bench.kernels)
    name = f"{settings.main}, {settings.tokens} tokens"
    yield from attempt(name, lambda: measured(bench, settings.main, settings.tokens, low, loop))
    yield from attempt("phases", lambda: phases(bench, loop))
    yield from attempt("profile", lambda: profile(bench, loop))


def phases(bench: Bench, loop: Loop) -> dict[str, Any]:
    """Milliseconds of an update by phase, launched kernel by kernel: medians over a pass."""
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
            trainer.step(1e-4, 1)
            clock.mark("clipping and optimizer")
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
    trainer = Trainer(bench.model(settings.main), torch.bfloat16, loop, recorded=True)
    batches = [make_batch(bench.corpus, part) for part in bench.plan(settings.tokens)[:3]]
    for batch in batches * 2:
        trainer.update(batch, bench.device)
    bench.wait()
    with torch.profiler.profile() as profiled:
        for batch in batches:
            trainer.update(batch, bench.device)
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
    widths = (shape["attention_hidden"], 2 * shape["encoder_hidden"], shape["decoder_hidden"])
    typical = make_batch(bench.corpus, bench.plan(settings.tokens)[0])
    rows, src_len, steps = len(typical.src), typical.src.shape[1], typical.trg_out.shape[1]
    for sizes in (Sizes(rows, src_len, steps, *widths), Sizes(-(-rows // 6), 48, 8, *widths)):
        made = cases(sizes, bench.device, torch.bfloat16)
        for name, case in made.items():
            if name in ("attend_backward_both", "gates_without_context"):
                continue

            def both(case: Any = case, name: str = name, sizes: Sizes = sizes) -> dict[str, Any]:
                buffers, repeats = case.buffers(), settings.repeats
                fast = timed(bench, lambda: case.run(bench.kernels, *buffers), repeats)
                plain = timed(bench, lambda: case.run(REFERENCE, *buffers), max(2, repeats // 6))
                tiles = {}
                if bench.device.type == "cuda" and name.startswith(
                    ("attend", "key_grads", "encoder_grads")
                ):
                    for tile, warps in ((2048, 4), (4096, 8), (8192, 4), (8192, 8), (16384, 8)):
                        kernels = TritonKernels(tile, warps)
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
