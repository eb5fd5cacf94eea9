"""The Triton kernels equal their plain twins (in Triton's interpreter: no GPU is needed)."""

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

from nmt.model.fast import kernels
from nmt.model.fast.kernels import PLAIN, OnTriton, available, why_not_triton

ROOT = Path(__file__).parents[2]


def _release(package: str) -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version(package).split(".")[:2]))


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
# Its interpreter loops over one-element arrays as numbers, which NumPy 2.4 does not allow.
needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None and _release("triton") < (3, 9)
    and _release("numpy") >= (2, 4),
    reason="the interpreter of Triton before 3.9 does not work with NumPy 2.4",
)  # fmt: skip


def run_script(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    """What the script found, in a process of its own: Triton reads its variable at import."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kernel_checks.py", *arguments],
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
    ["look", "look_backward", "look_backward_both", "look_finish", "spread", "gates",
     "gates_alone", "gates_backward", "cross_entropy", "recurrence, query state",
     "recurrence, query state+word", "recurrence without attention"],
)  # fmt: skip
def test_kernel_equals_its_plain_twin(
    what: str, dtype: str, outcomes: list[dict[str, Any]]
) -> None:
    own = [one for one in outcomes if (one["what"], one["dtype"]) == (what, dtype)]
    assert {one["sizes"]["src_len"] for one in own} == {1, 7, 33}
    for one in own:
        assert one["failure"] is None
        assert one["error"] <= one["tolerance"], one


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    found = run_script("--compile-for", "90", TRITON_INTERPRET="0")
    assert {one["failure"] for one in found} == {None}
    assert sorted(one["what"].split()[0] for one in found) == [
        "cross_entropy", "gates", "gates_backward", "look", "look_backward", "look_finish",
        "spread",
    ]  # fmt: skip


def test_a_kernel_that_is_wrong_would_be_seen() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import kernel_checks
    finally:
        sys.path.pop(0)

    class Wrong(type(PLAIN)):  # type: ignore[misc]
        def gates_backward(self, *tensors: torch.Tensor) -> None:
            super().gates_backward(*tensors)
            tensors[-2][0, 0] += 0.01

    sizes = kernel_checks.SMALL[:1]
    cpu = torch.device("cpu")
    found = list(kernel_checks.checks(sizes, cpu, (torch.float32,), Wrong()))
    bad = {one.what for one in found if not one.passed}
    assert bad == {
        "gates_backward",
        "recurrence, query state",
        "recurrence, query state+word",
        "recurrence without attention",
    }
    assert all(one.passed for one in kernel_checks.checks(sizes, cpu, kernels=PLAIN))


def test_why_the_kernels_do_not_run_here() -> None:
    assert why_not_triton(torch.zeros(1)) == "the device is cpu"
    assert not available(torch.zeros(1))


def test_tile_sizes_are_powers_of_two_and_never_empty() -> None:
    made = OnTriton(tile=4096)
    for rows in (2, 16, 128, 1024):
        for width in (1, 24, 100, 1000, 1024):
            columns = made._columns(rows, width)
            assert columns & (columns - 1) == 0
            assert 16 <= columns <= max(16, 4096 // rows)


def test_a_triton_that_fails_is_not_used_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(torch.Tensor):
        is_cuda = True

    tensor = torch.zeros(1).as_subclass(OnGpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert why_not_triton(tensor) == "triton is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "found")
    assert why_not_triton(tensor.double()) == "torch.float64 is not a type for them"
    assert why_not_triton(tensor, 2000) == "a source of 2000 tokens is longer than 1024"

    def broken(*_tensors: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    kernels._trial.cache_clear()
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(OnTriton, "gates", broken)
    reason = "triton fails here: RuntimeError: Failed to find C compiler"
    assert why_not_triton(tensor) == reason
    kernels._trial.cache_clear()
