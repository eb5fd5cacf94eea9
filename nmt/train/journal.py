"""The journal: ``train.jsonl``, one record a line, so that a run can be explained later."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import nmt
from nmt.text import replacing, writing_to

NAME = "train.jsonl"


class Journal:
    """Appends records to a run's journal.

    Records have a ``kind``: ``start`` (environment, once each time training begins or
    goes on), ``log`` (loss and speed) and ``validation`` (scores and samples).

    Args:
        folder: the run directory.
        update: training goes on from here; records of later updates, left behind by a
            kill after the last checkpoint, are removed since they will come again.
    """

    def __init__(self, folder: Path, update: int) -> None:
        self.path = folder / NAME
        if self.path.exists():
            kept = [r for r in read_journal(folder) if r.get("update", 0) <= update]
            text = b"".join(map(_line, kept))
            if text != self.path.read_bytes():
                with replacing(self.path) as file:
                    file.write(text)

    def write(self, kind: str, **values: Any) -> None:
        """Append one record.

        Raises:
            NmtError: the disk is full.
        """
        with writing_to(self.path), self.path.open("ab") as file:
            file.write(_line({"kind": kind, **values}))


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """All whole records of a run's journal; a last line cut off by a kill is left out."""
    records = []
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def environment(device: torch.device) -> dict[str, Any]:
    """What a repetition would need to know of this machine and program."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {
        "program": nmt.__version__,
        "git": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "device_name": name or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _git_commit() -> str | None:
    """Commit of the program if it runs from a clone, with ``+`` if files were changed."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _line(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
