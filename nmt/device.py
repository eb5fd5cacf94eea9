"""Device and precision selection, CPU cores, out-of-memory detection."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.errors import NmtError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Within, what a command needs is imported and loaded, and no garbage is looked for.

    Importing torch makes some 166,000 objects that stay to the end. Python's collector would
    go through them again and again meanwhile, and once more at exit, which is a quarter of
    the processor time of importing torch and ending. Only the first time in a process.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def choose_device(name: str) -> torch.device:
    """The device called `name`; ``auto`` takes a GPU if there is one, and says so.

    Raises:
        NmtError: an unknown name, or ``cuda`` where PyTorch sees no GPU.
    """
    import torch

    if name == "auto":
        works = torch.cuda.is_available()
        if works and (broken := _why_not_cuda("cuda")) is not None:
            logger.warning(f"the GPU is not used: {broken}")
            works = False
        chosen = torch.device("cuda" if works else "cpu")
        if not works:
            _keep_to_allowed_cores()
        label = torch.cuda.get_device_name() if works else f"{torch.get_num_threads()} threads"
        logger.info(f"device: {chosen.type} ({label})")
        return chosen
    if name == "cpu":
        _keep_to_allowed_cores()
        return torch.device("cpu")
    if name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit()):
        if not torch.cuda.is_available():
            raise NmtError(
                f"--device {name}: PyTorch {torch.__version__} sees no GPU",
                "use --device cpu, or install a PyTorch build for your GPU",
            )
        if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
            raise NmtError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
        if (broken := _why_not_cuda(name)) is not None:
            raise NmtError(
                f"--device {name}: PyTorch {torch.__version__} can't use it: {broken}",
                "use --device cpu, or install a PyTorch build for your GPU",
            )
        return torch.device(name)
    raise NmtError(f"--device {name}: unknown device", "one of: auto, cpu, cuda, cuda:N")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of products called `name`; ``auto`` says what it chose and why.

    bfloat16 has the range of float32 and a third of its digits. Processors with instructions
    for it multiply it at least twice as fast; on others it would be slower.
    """
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = any(
            getattr(torch.cpu, ask, bool)()
            for ask in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    logger.info(
        "precision: bfloat16 products (this processor has instructions for them)"
        if fast
        else "precision: float32 (this processor has no instructions for bfloat16)"
    )
    return torch.bfloat16 if fast else torch.float32


def _why_not_cuda(name: str) -> str | None:
    """What is wrong with a GPU: too old or new for this build, or somebody else's alone."""
    import torch

    try:
        torch.ones(1, device=name).add_(1).item()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def allowed_cores() -> int:
    """Cores this process may use, by its affinity and by its container's quota."""
    several = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if several else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no control groups, or no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def cores_of_a_worker() -> int:
    """Cores for each of the workers that ``torchrun`` has started on this machine."""
    return max(1, allowed_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _keep_to_allowed_cores() -> None:
    """More threads than that would wait for one another; OMP_NUM_THREADS is a wish."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))


def compute_reproducibly(device: torch.device) -> None:
    """Choose GPU kernels whose sums come in a fixed order: same seed, same bits.

    On a CPU ours do already. Must be called before the first product on the GPU.
    """
    import torch

    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Otherwise every new tensor would be filled, against reading what was never written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a device, or the machine itself, saying that memory is full."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    said = ("DefaultCPUAllocator", "CUDA error: out of memory", "[CUDA]: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED")  # fmt: skip
    return any(each in str(error) for each in said)
