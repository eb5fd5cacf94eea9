"""The Triton kernels against the reference, in Triton's interpreter: no GPU is needed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.model.fast import triton_launch
from nmt.model.fast.kernels import REFERENCE
from nmt.model.fast.triton_launch import (
    TritonKernels,
    describe_kernels,
    triton_available,
    why_not_triton,
)

ROOT = Path(__file__).parents[2]


def _release(package: str) -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version(package).split(".")[:2]))


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
# Its interpreter converts one-element arrays to scalars, which NumPy 2.4 does not allow.
needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None and _release("triton") < (3, 9)
    and _release("numpy") >= (2, 4),
    reason="the interpreter of Triton before 3.9 does not work with NumPy 2.4",
)  # fmt: skip


def run_script(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    """Run the script in a process: Triton reads TRITON_INTERPRET at import."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gpu" / "kernel_checks.py", *arguments],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    return run_script("--device", "cpu", TRITON_INTERPRET="1")


@needs_triton
@needs_interpreter
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "what",
    ["attend", "attend_backward", "attend_backward_both", "key_grads", "encoder_grads",
     "gates", "gates_without_context", "gates_backward", "cross_entropy", "recurrence, query state",
     "recurrence, query state+word", "recurrence without attention"],
)  # fmt: skip
def test_kernel_equals_the_reference(what: str, dtype: str, outcomes: list[dict[str, Any]]) -> None:
    selected = [o for o in outcomes if (o["what"], o["dtype"]) == (what, dtype)]
    assert {outcome["sizes"]["src_len"] for outcome in selected} == {1, 7, 33}
    for outcome in selected:
        assert outcome["failure"] is None
        assert outcome["error"] <= outcome["tolerance"], outcome


@needs_triton
def test_kernels_compile_without_a_gpu() -> None:
    outcomes = run_script("--compile-for", "90", TRITON_INTERPRET="0")
    assert {outcome["failure"] for outcome in outcomes} == {None}
    assert sorted(outcome["what"].split()[0] for outcome in outcomes) == [
        "attend", "attend_backward", "cross_entropy", "encoder_grads", "gates", "gates_backward",
        "key_grads",
    ]  # fmt: skip


def test_a_wrong_kernel_is_detected() -> None:
    sys.path.insert(0, str(ROOT / "scripts" / "gpu"))
    try:
        import kernel_checks
    finally:
        sys.path.pop(0)

    class Wrong(type(REFERENCE)):  # type: ignore[misc]
        def gates_backward(self, *tensors: torch.Tensor) -> None:
            super().gates_backward(*tensors)
            tensors[-2][0, 0] += 0.01

    sizes = kernel_checks.SMALL[:1]
    cpu = torch.device("cpu")
    outcomes = kernel_checks.checks(sizes, cpu, (torch.float32,), Wrong())
    assert {outcome.what for outcome in outcomes if not outcome.passed} == {
        "gates_backward",
        "recurrence, query state",
        "recurrence, query state+word",
        "recurrence without attention",
    }
    assert all(o.passed for o in kernel_checks.checks(sizes, cpu, kernels=REFERENCE))


def test_triton_does_not_run_on_a_cpu() -> None:
    assert why_not_triton(torch.zeros(1)) == "the device is cpu"
    assert not triton_available(torch.zeros(1))
    description = describe_kernels(torch.device("cpu"))
    assert description == "PyTorch kernels (the device is cpu)"


def test_block_widths_are_powers_of_two() -> None:
    kernels = TritonKernels(tile=4096)
    for rows in (2, 16, 128, 1024):
        for width in (1, 24, 100, 1000, 1024):
            columns = kernels._block_width(rows, width)
            assert columns & (columns - 1) == 0
            assert 16 <= columns <= max(16, 4096 // rows)


def test_the_reason_why_triton_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(torch.Tensor):
        is_cuda = True

    tensor = torch.zeros(1).as_subclass(OnGpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert why_not_triton(tensor) == "triton is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "found")
    assert why_not_triton(tensor.double()) == "torch.float64 is not supported by the Triton kernels"
    assert why_not_triton(tensor, 2000) == (
        "the source has 2000 tokens; the Triton kernels hold 1024"
    )

    def broken(*_tensors: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    triton_launch._trial.cache_clear()
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(TritonKernels, "gates", broken)
    reason = "a Triton kernel failed: RuntimeError: Failed to find C compiler"
    assert why_not_triton(tensor) == reason
    triton_launch._trial.cache_clear()
