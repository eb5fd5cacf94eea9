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
    """Context manager that disables garbage collection while torch is imported.

    Importing torch creates some 166,000 permanent objects. Traversing them repeatedly, and again
    at exit, would take a quarter of the CPU time of a process that only imports torch. The objects
    are frozen afterwards. Does nothing if torch has been imported already.
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
    """Return the device `name`. ``auto`` is the GPU if one works, else the CPU, and is logged.

    Raises:
        NmtError: the name is unknown, or PyTorch cannot use the GPU.
    """
    import torch

    if name == "auto":
        works = torch.cuda.is_available()
        if works and (reason := _cuda_error("cuda")) is not None:
            logger.warning(f"the GPU is not used: {reason}")
            works = False
        chosen = torch.device("cuda" if works else "cpu")
        if not works:
            _limit_threads()
        label = torch.cuda.get_device_name() if works else f"{torch.get_num_threads()} threads"
        logger.info(f"device: {chosen.type} ({label})")
        return chosen
    if name == "cpu":
        _limit_threads()
        return torch.device("cpu")
    if name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit()):
        if not torch.cuda.is_available():
            raise NmtError(
                f"--device {name}: PyTorch {torch.__version__} finds no GPU",
                "use --device cpu, or install a PyTorch build for your GPU",
            )
        if name != "cuda" and int(name[5:]) >= torch.cuda.device_count():
            raise NmtError(f"--device {name}: there are {torch.cuda.device_count()} GPUs")
        if (reason := _cuda_error(name)) is not None:
            raise NmtError(
                f"--device {name}: PyTorch {torch.__version__} cannot use it: {reason}",
                "use --device cpu, or install a PyTorch build for your GPU",
            )
        return torch.device(name)
    raise NmtError(f"--device {name}: unknown device", "one of: auto, cpu, cuda, cuda:N")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the data type of matmuls. ``auto`` is bfloat16 on hardware that supports it.

    bfloat16 has the range of float32 and a third of its digits. With hardware support its matmuls
    are at least twice as fast; without, they are slower than those of float32. The choice of
    ``auto`` is logged.
    """
    import torch

    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = any(
            getattr(torch.cpu, check, bool)()
            for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    logger.info(
        "precision: bfloat16 matmuls (hardware support detected)"
        if fast
        else "precision: float32 (no hardware support for bfloat16)"
    )
    return torch.bfloat16 if fast else torch.float32


def _cuda_error(name: str) -> str | None:
    """Return why a GPU cannot be used: unsupported by this build, or in exclusive use."""
    import torch

    try:
        torch.ones(1, device=name).add_(1).item()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None


def allowed_cores() -> int:
    """Return the number of CPU cores that the affinity mask and the cgroup quota allow."""
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroups, or no quota
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def cores_per_worker() -> int:
    """Return the CPU cores per ``torchrun`` worker of this machine."""
    return max(1, allowed_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _limit_threads() -> None:
    """Use no more threads than allowed cores, unless OMP_NUM_THREADS is set."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))


def use_deterministic_algorithms(device: torch.device) -> None:
    """Use deterministic GPU kernels, so that equal seeds give equal bits.

    CPU kernels are deterministic already. Must be called before the first matmul on the GPU.
    """
    import torch

    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # PyTorch would otherwise fill every new tensor.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports that the memory of a device or of the machine is full."""
    import torch

    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    messages = ("DefaultCPUAllocator", "CUDA error: out of memory", "[CUDA]: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED", "could not create a primitive")  # fmt: skip
    return any(message in str(error) for message in messages)
