"""The journal of a run: ``train.jsonl``, one JSON record per line.

Every record has a ``kind`` and an ``update``:

- ``start``: the environment, each time training starts or resumes;
- ``forecast``: memory, time and disk space, before the first update;
- ``log``: loss in nats per target token (without label smoothing), gradient norm before clipping,
  learning rate, target tokens per second, fraction of padding;
- ``validation``: dev BLEU and chrF with sacreBLEU's signature, and the translations of a fixed
  sample of dev sentences;
- ``event``: a problem and how it was handled, as text.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.io.write import check_inside, write_whole, writing_to
from nmt.version import __version__

logger = logging.getLogger(__name__)

JOURNAL = "train.jsonl"


class Journal:
    """Writer of a run's journal, optionally also for TensorBoard.

    A record that cannot be written is dropped with a warning, and training continues.

    Args:
        folder: the run directory.
        update: the update that training resumes from. Records of later updates, from a process
            killed after the last checkpoint, are removed; training will write them again.
        tensorboard: also write numeric values for TensorBoard into ``tensorboard/``.

    Raises:
        NmtError: `tensorboard` is set and the package is not installed.
    """

    def __init__(self, folder: Path, update: int, *, tensorboard: bool = False) -> None:
        self.path = folder / JOURNAL
        check_inside(self.path, folder)
        self._board = _board(folder / "tensorboard", update) if tensorboard else None
        if self.path.exists():
            kept = [r for r in read_journal(folder) if r.get("update", 0) <= update]
            text = b"".join(map(_line, kept))
            if text != self.path.read_bytes():
                write_whole(self.path, text)

    def write(self, kind: str, update: int, **values: Any) -> None:
        """Append one record."""
        try:
            with writing_to(self.path):
                self._append(_line({"kind": kind, "update": update, **values}))
            if self._board is not None:
                for key, value in values.items():
                    if kind in ("log", "validation") and isinstance(value, (int, float)):
                        self._board.add_scalar(f"{kind}/{key}", value, update)
                self._board.flush()
        except (NmtError, OSError) as error:
            logger.warning(f"journal record dropped: {error}")

    def _append(self, line: bytes) -> None:
        """Append a whole line; truncate what a full disk has left of it."""
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(end)
                raise


def check_tensorboard() -> None:
    """Refuse to write for TensorBoard if its package is not installed.

    Raises:
        NmtError: it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise NmtError(
            "--tensorboard: the package tensorboard is not installed",
            "pip install 'nmt-zh-en[tensorboard]'",
        ) from None


def _board(folder: Path, update: int) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=update + 1)


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions and hardware needed to reproduce a run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "program": __version__,
        "git": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "device_name": name or platform.machine(),
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
    }


def _git_commit() -> str | None:
    """Return the git commit if run from a clone, with ``+`` if tracked files are modified."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


@dataclass
class Window:
    """Sums over the updates since the last log record.

    Attributes:
        updates: number of updates.
        loss: without label smoothing, summed over this worker's target tokens.
        tokens: this worker's target tokens, including EOS.
        cells: the same with padding.
        seconds: time without validations and saves.
        norm: last gradient norm.
        rate: last learning rate.
    """

    updates: int = 0
    loss: float = 0.0
    tokens: int = 0
    cells: int = 0
    seconds: float = 0.0
    norm: float = 0.0
    rate: float = 0.0

    def add(
        self, loss: float, tokens: int, norm: float, cells: int, rate: float, seconds: float
    ) -> None:
        """Add one update: loss, tokens and cells of this worker, norm and rate of all workers."""
        self.updates += 1
        self.loss += loss
        self.tokens += tokens
        self.cells += cells
        self.norm, self.rate = norm, rate
        self.seconds += seconds

    def values(self, workers: Workers) -> dict[str, Any]:
        """Return the values of a log record, over all workers."""
        loss, tokens, cells = workers.sum([self.loss, self.tokens, self.cells])
        return {
            "loss": round(loss / max(tokens, 1), 4),
            "gradient_norm": round(self.norm, 4),
            "learning_rate": self.rate,
            "tokens_per_second": round(tokens / max(self.seconds, 1e-9)),
            "padding": round(1 - tokens / max(cells, 1), 4),
        }


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Return all records of a run's journal. Truncated lines are skipped."""
    records = []
    try:
        text = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return []
    for line in text.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:  # truncated, perhaps inside a character
            continue
        if isinstance(record, dict):
            records.append(record)
    return records
