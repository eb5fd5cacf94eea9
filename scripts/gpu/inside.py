"""Where an update spends its time: phases and device kernels."""

from __future__ import annotations

import statistics
import time
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gpu.harness import Bench, Results, Trainer, attempt
from gpu.speed import measured
from nmt.data.batches import make_batch
from nmt.model import seq2seq
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import Kernels


def section_main(bench: Bench) -> Results:
    """Measure the main shape: speed, phases and kernels."""
    settings, kernels = bench.settings, bench.kernels
    name = f"{settings.main}, {settings.tokens} tokens"
    yield from attempt(
        name, lambda: measured(bench, settings.main, settings.tokens, torch.bfloat16, kernels)
    )
    yield from attempt("phases", lambda: phases(bench, kernels))
    yield from attempt("profile", lambda: profile(bench, kernels))


def phases(bench: Bench, kernels: Kernels) -> dict[str, Any]:
    """Return the median milliseconds of each phase of an update, without CUDA graphs."""
    settings = bench.settings
    trainer = Trainer(bench.model(settings.main), torch.bfloat16, kernels)
    durations: dict[str, list[float]] = {}
    for number in range(2):
        for part in bench.plan(settings.tokens):
            clock = Clock(bench)
            batch = bench.batch(part)
            clock.mark("")

            def unroll(
                decoder: Any, input_gates: Tensor, *rest: Any, clock: Clock = clock
            ) -> tuple[Tensor, Tensor, Tensor]:
                clock.mark("encoder, embeddings, keys")
                input_gates.register_hook(lambda _: clock.mark("recurrence, backward"))
                outputs = recurrence.unroll(decoder, input_gates, *rest)
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
                    durations.setdefault(name, []).append(milliseconds)
    return {name: statistics.median(times) for name, times in durations.items()}


class Clock:
    """Time stamps between phases, on the device."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.marks: list[tuple[str, Any]] = []

    def mark(self, name: str) -> None:
        """Record the end of phase `name`."""
        if self.bench.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append((name, event))
        else:
            self.marks.append((name, time.perf_counter()))

    def durations(self) -> list[tuple[str, float]]:
        """Return the milliseconds of each phase; synchronises with the device."""
        self.bench.wait()
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.bench.device.type == "cuda":
            return [(name, start.elapsed_time(end)) for (_, start), (name, end) in pairs]
        return [(name, (end - start) * 1e3) for (_, start), (name, end) in pairs]


def profile(bench: Bench, kernels: Kernels) -> list[dict[str, Any]]:
    """Return the device time of three updates by kernel, longest first."""
    settings = bench.settings
    trainer = Trainer(bench.model(settings.main), torch.bfloat16, kernels, recorded=True)
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
        duration = getattr(event, "self_device_time_total", 0) or 0
        if bench.device.type != "cuda":
            duration = event.self_cpu_time_total
        elif str(getattr(event, "device_type", "")).endswith("CPU"):
            continue  # launches
        rows.append({"kernel": event.key[:120], "calls": event.count, "microseconds": duration})
    return sorted(rows, key=lambda row: -row["microseconds"])[:40]
