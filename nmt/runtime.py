"""Where the program runs: device, seeds, messages, and the wish to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from nmt.errors import NmtError

if TYPE_CHECKING:
    import torch


def say(message: str) -> None:
    """One line on stderr, above a progress bar if there is one. stdout is for results."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def warn(message: str) -> None:
    """As `say`, for what the user should look at."""
    say(f"warning: {message}")


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` takes a GPU if there is one, and says so.

    Raises:
        NmtError: an unknown name, or ``cuda`` where PyTorch sees no GPU.
    """
    import torch

    if name == "auto":
        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        label = torch.cuda.get_device_name() if chosen.type == "cuda" else _cpu_label()
        say(f"device: {chosen.type} ({label})")
        return chosen
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit()):
        if not torch.cuda.is_available():
            raise NmtError(
                f"--device {name}: PyTorch {torch.__version__} sees no GPU",
                "use --device cpu, or install a PyTorch build for your GPU",
            )
        if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
            raise NmtError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
        return torch.device(name)
    raise NmtError(f"--device {name}: unknown device", "one of: auto, cpu, cuda, cuda:N")


def _cpu_label() -> str:
    import torch

    return f"{torch.get_num_threads()} threads"


class Stop:
    """Set once the user or the machine asks the program to end (Ctrl-C, SIGTERM)."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Within, the first Ctrl-C or SIGTERM only sets the flag; a second Ctrl-C interrupts."""
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number
        say("stopping: saving first (Ctrl-C again to stop without)")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
