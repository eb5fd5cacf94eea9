"""Device, precision, signals, CPU cores, garbage collection at start."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from nmt import device
from nmt.device import choose_device, choose_precision, starting
from nmt.errors import NmtError
from nmt.signals import stopping_on_signals


def test_the_cpu_can_be_chosen() -> None:
    assert choose_device("cpu").type == "cpu"


def test_the_automatic_device_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose_device("auto")
    assert capsys.readouterr().err.startswith(f"device: {chosen.type} (")


def test_the_precision_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fast", [True, False])
def test_the_automatic_precision_depends_on_the_hardware_and_is_logged(
    fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen == (torch.bfloat16 if fast else torch.float32)
    assert capsys.readouterr().err == (
        "precision: bfloat16 matmuls (hardware support detected)\n"
        if fast
        else "precision: float32 (no hardware support for bfloat16)\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(NmtError, match=r"--device cuda: PyTorch .* finds no GPU") as caught:
        choose_device("cuda")
    assert caught.value.hint == "use --device cpu, or install a PyTorch build for your GPU"


def test_a_gpu_that_this_pytorch_has_no_kernels_for_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "_cuda_error", lambda name: f"no kernel image for {name}")
    assert choose_device("auto").type == "cpu"
    assert "warning: the GPU is not used: no kernel image for cuda\n" in capsys.readouterr().err
    with pytest.raises(NmtError, match="cannot use it: no kernel image for cuda:0"):
        choose_device("cuda:0")


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("max 100000", 64), ("800000 100000", 8)]
)
def test_allowed_cores_respect_the_cgroup_quota(
    quota: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert device.allowed_cores() == expected


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(NmtError, match="--device gpu: unknown device"):
        choose_device("gpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_requests_a_stop_and_the_second_interrupts(number: int) -> None:
    before = signal.getsignal(number)
    with stopping_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_garbage_collection_is_disabled_while_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with starting():
            assert not gc.isenabled()
            with starting():  # nested: no effect
                pass
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_garbage_collection_stays_enabled_if_torch_is_imported() -> None:
    with starting():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_workers_of_a_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "allowed_cores", lambda: 8)
    for workers, cores in (("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", workers)
        assert device.cores_per_worker() == cores
