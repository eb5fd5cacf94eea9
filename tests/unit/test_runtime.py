from __future__ import annotations

import os
import signal

import pytest
import torch

from nmt.errors import NmtError
from nmt.runtime import choose_device, stopping_on_signals


def test_cpu_is_cpu() -> None:
    assert choose_device("cpu").type == "cpu"


def test_auto_says_what_it_chose(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose_device("auto")
    assert capsys.readouterr().err.startswith(f"device: {chosen.type} (")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error() -> None:
    with pytest.raises(NmtError, match=r"--device cuda: PyTorch .* sees no GPU") as caught:
        choose_device("cuda")
    assert caught.value.hint == "use --device cpu, or install a PyTorch build for your GPU"


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
