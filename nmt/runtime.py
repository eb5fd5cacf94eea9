"""Where the program runs: device, fellow workers, messages, and the wish to stop."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from nmt.errors import NmtError

if TYPE_CHECKING:
    import torch

_MEET_SECONDS = 30  # for all workers to find one another
_WAIT_MINUTES = 30  # for one of them to be done with what the others wait for


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


def say(message: str) -> None:
    """One line on stderr, above a progress bar if there is one. stdout is for results.

    Of several workers only the first speaks. A terminal that has gone away is no reason to
    end a training, so a line that can't be written is lost.
    """
    from tqdm import tqdm

    if os.environ.get("RANK", "0") == "0":
        try:
            tqdm.write(message, file=sys.stderr)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # nobody reads it any more
                with contextlib.suppress(OSError):
                    leave(sys.stderr)


def leave(stream: TextIO) -> None:
    """Write nothing more to stdout or stderr, whose reader is gone or whose disk is full.

    Python would complain at exit of what it still holds.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
        works = torch.cuda.is_available()
        if works and (broken := _why_not_cuda("cuda")) is not None:
            warn(f"the GPU is not used: {broken}")
            works = False
        chosen = torch.device("cuda" if works else "cpu")
        if not works:
            _keep_to_allowed_cores()
        label = torch.cuda.get_device_name() if works else f"{torch.get_num_threads()} threads"
        say(f"device: {chosen.type} ({label})")
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
    say(
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


@dataclass(frozen=True)
class Workers:
    """The processes that train one network together; mostly there is just this one.

    What they agree on travels between CPUs (gloo), so that no GPU has to wait for it; tensors
    travel from where they are.

    Attributes:
        rank: of this one, from 0. Rank 0 alone writes files.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all workers, the same on all of them."""
        return self._reduce(values, "MAX")

    def smallest(self, values: Sequence[float]) -> list[float]:
        """The smallest of each value over all workers, the same on all of them."""
        return self._reduce(values, "MIN")

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all workers, the same on all of them."""
        return self._reduce(values, "SUM")

    def _reduce(self, values: Sequence[float], how: str) -> list[float]:
        if self.count == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=getattr(dist.ReduceOp, how))
        agreed: list[float] = tensor.tolist()
        return agreed

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace every tensor by its sum over all workers, where it lies."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        whole = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(whole)
        sums = torch.split(whole, [tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, sums, strict=True):
            tensor.copy_(total.view_as(tensor))

    def agree(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give everybody the first one's tensors, where they lie."""
        if self.count == 1:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on once all workers have come here."""
        self.total([0.0])

    def share(self, items: Sequence[str]) -> list[str]:
        """This worker's part of the work; `gather` puts the parts together again."""
        return list(items[self.rank :: self.count])

    def gather(self, part: list[str]) -> list[str]:
        """The results of all workers, in the order of what `share` was given."""
        if self.count == 1:
            return part
        import torch.distributed as dist

        parts: list[list[str]] = [[] for _ in range(self.count)]
        dist.all_gather_object(parts, part)
        whole = [""] * sum(map(len, parts))
        for rank, items in enumerate(parts):
            whole[rank :: self.count] = items
        return whole


@contextlib.contextmanager
def joining_workers(device_name: str) -> Iterator[tuple[torch.device, Workers]]:
    """Within, this process and its fellows that ``torchrun`` started belong together.

    Yields:
        The device of this worker, and the group; a group of one without ``torchrun``.

    Raises:
        NmtError: as `choose_device`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield choose_device(device_name), Workers()
        return
    import torch
    import torch.distributed as dist

    device = choose_device(device_name)
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise NmtError(
                f"worker {local} of this machine has no GPU: there are {torch.cuda.device_count()}",
                "start no more workers than GPUs: torchrun --nproc-per-node",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    meet = timedelta(seconds=_MEET_SECONDS)
    store, rank, size = next(dist.rendezvous("env://", timeout=meet))  # type: ignore[attr-defined]
    # After a restart the store still holds the addresses of the workers before, and gloo would
    # take one of them for a worker of now, and be refused or wait for ever.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=meet)
    # Later on, one may wait long for another that translates or saves.
    dist.distributed_c10d._set_pg_timeout(timedelta(minutes=_WAIT_MINUTES))
    try:
        yield device, Workers(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


class Stop:
    """Set once the user or the machine asks the program to end (Ctrl-C, SIGTERM, hangup)."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """Within, the first Ctrl-C, SIGTERM or hangup only sets the flag; a second interrupts.

    A hangup that is ignored already (nohup) stays ignored.
    """
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number
        say("stopping: saving first (Ctrl-C again to stop without)")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
