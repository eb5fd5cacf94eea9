"""Whether it computes the right thing: every kernel alone, and a whole update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from shapes import SHAPES
from torch import Tensor

from gpu.bench import Bench, Found, Loop, Trainer, attempt
from gpu.kernel_checks import SMALL, Sizes, checks
from nmt.data.batches import Indices, make_batch
from nmt.model import seq2seq
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import REFERENCE

# Energies do not see a bias that all keys share; what norms scale and shift, an untrained
# network hardly minds.
_CANCELLED = ("attention.project.bias", "norm.")
# What goes through kernels besides the paper's network.
_KEYS: dict[str, Any] = {"attention_query": "state+word", "source_bridge": True, "layer_norm": True}


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
        model = bench.model(shape, dropout=0.0, **_KEYS)
        loss = Trainer(model, precision, loop).gradient(bench.batch(part))
        found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        return {"loss": loss.detach().cpu(), **found}

    expected = gradients(Bench(replace(bench.settings, device="cpu")), torch.float32, None)

    paths: list[tuple[str, torch.dtype, Loop | None, float]] = [
        ("plain, float32", torch.float32, bench.loop(REFERENCE), 1e-2),
        ("kernels, float32", torch.float32, bench.loop(bench.kernels), 1e-2),
        ("plain, bfloat16", torch.bfloat16, bench.loop(REFERENCE), 1e-1),
        ("kernels, bfloat16", torch.bfloat16, bench.loop(bench.kernels), 1e-1),
        ("the program's own choice, bfloat16", torch.bfloat16, None, 1e-1),
    ]
    for name, precision, loop, tolerance in paths:

        def compared(
            precision: torch.dtype = precision, loop: Loop | None = loop, most: float = tolerance
        ) -> dict[str, Any]:
            found = gradients(bench, precision, loop)
            again = gradients(bench, precision, loop)
            apart = relative_errors(found, expected)
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

    yield from attempt("recorded, bfloat16", lambda: recorded(bench, shape, part, expected))

    def step_loop() -> dict[str, Any]:
        with mock.patch.object(seq2seq, "unroll", recurrence.unroll_by_step):
            found = gradients(bench, torch.float32, None)
        return {"largest_relative_error": max(relative_errors(found, expected).values())}

    yield from attempt("step by step, float32", step_loop)


def recorded(
    bench: Bench, shape: str, part: Indices, expected: dict[str, Tensor]
) -> dict[str, Any]:
    """Recorded gradients: right, and with dropout the same bits as those launched one by one."""
    batch = make_batch(bench.corpus, part)

    def gradients(trainer: Trainer, seed: int = 1) -> dict[str, Tensor]:
        trainer.model.zero_grad(set_to_none=False)
        torch.manual_seed(seed)
        loss = trainer.add_recorded(batch)
        named = trainer.model.named_parameters()
        found = {name: p.grad.to("cpu", copy=True) for name, p in named if p.grad is not None}
        return {"loss": loss.detach().cpu(), **found}

    def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
        return all(torch.equal(one[key], other[key]) for key in one)

    loop = bench.loop(bench.kernels)
    plain = Trainer(bench.model(shape, dropout=0.0, **_KEYS), torch.bfloat16, loop, recorded=True)
    gradients(plain)
    found = gradients(plain)
    apart = relative_errors(found, expected)
    dropped = Trainer(bench.model(shape, dropout=0.2, **_KEYS), torch.bfloat16, loop, recorded=True)
    launched, first, again, other = (gradients(dropped, seed) for seed in (1, 1, 1, 2))
    return {
        "largest_relative_error": max(apart.values()),
        "passed": max(apart.values()) <= 1e-1 and same(launched, first) and same(first, again),
        "same_bits_as_launched": same(launched, first),
        "same_bits_again": same(first, again),
        "other_seed_other_bits": not same(again, other),
    }


def relative_errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Of each gradient; a fifth of it for those in which many tokens cancel each other out."""
    errors = {key: relative_error(found[key], expected[key]) for key in expected}
    return {
        key: error / 5 if any(part in key for part in _CANCELLED) else error
        for key, error in errors.items()
    }


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Length of the difference, as a share of the length of what was expected."""
    apart = (found.double() - expected.double()).norm()
    return float(apart / expected.double().norm().clamp_min(1e-30))
