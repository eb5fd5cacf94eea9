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


def test_cpu_is_cpu() -> None:
    assert choose_device("cpu").type == "cpu"


def test_auto_says_what_it_chose(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose_device("auto")
    assert capsys.readouterr().err.startswith(f"device: {chosen.type} (")


def test_precision_is_the_one_named(capsys: pytest.CaptureFixture[str]) -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_follows_the_processor_and_says_so(
    fast: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen == (torch.bfloat16 if fast else torch.float32)
    assert capsys.readouterr().err == (
        "precision: bfloat16 products (this processor has instructions for them)\n"
        if fast
        else "precision: float32 (this processor has no instructions for bfloat16)\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(NmtError, match=r"--device cuda: PyTorch .* sees no GPU") as caught:
        choose_device("cuda")
    assert caught.value.hint == "use --device cpu, or install a PyTorch build for your GPU"


def test_a_gpu_that_this_pytorch_has_no_kernels_for_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(device, "_why_not_cuda", lambda name: f"no kernel image for {name}")
    assert choose_device("auto").type == "cpu"
    assert "warning: the GPU is not used: no kernel image for cuda\n" in capsys.readouterr().err
    with pytest.raises(NmtError, match="can't use it: no kernel image for cuda:0"):
        choose_device("cuda:0")


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("max 100000", 64), ("800000 100000", 8)]
)
def test_a_container_has_the_cores_of_its_quota(
    quota: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert device.allowed_cores() == expected


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(NmtError, match="--device gpu: unknown device"):
        choose_device("gpu")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_a_second_one_insists(number: int) -> None:
    before = signal.getsignal(number)
    with stopping_on_signals() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_while_torch_is_imported_no_garbage_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    try:
        with starting():
            assert not gc.isenabled()
            with starting():  # within, it changes nothing
                pass
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_with_torch_there_garbage_is_collected_as_ever() -> None:
    with starting():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_workers_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "allowed_cores", lambda: 8)
    for there, cores in (("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", there)
        assert device.cores_of_a_worker() == cores
