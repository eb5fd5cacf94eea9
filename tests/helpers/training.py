"""Train in tests: with injected clocks, saves, signals and errors; and compare runs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nmt.run.journal import read_journal
from nmt.train import gradient, loop
from nmt.train.loss import Loss, batch_loss
from nmt.train.state import TrainState
from tests.helpers.command import Result, nmt

FORECAST_LOSSES = 4  # computations of the loss before the first update


def train(config: Path, run: Path, *sets: str) -> Result:
    """Run ``nmt train`` on the CPU."""
    words = [word for key in (f"run={run}", *sets) for word in ("--set", key)]
    return nmt("train", "--config", config, "--device", "cpu", *words)


def train_run(config: Path, run: Path, *sets: str) -> Path:
    """Run ``nmt train``, which must succeed, and return the run directory."""
    result = train(config, run, *sets)
    assert result.code == 0, result.err
    return run


@contextlib.contextmanager
def injected(**arguments: Any) -> Iterator[None]:
    """Context manager: pass further arguments (clock, save_due) to `nmt.train.loop.train`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", functools.partial(loop.train, **arguments))
        yield


def train_until_signal(config: Path, run: Path, update: int, *sets: str) -> None:
    """Train until a signal arrives after an update."""

    def send_signal(state: TrainState) -> bool:
        if state.update == update:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with injected(save_due=send_signal):
        result = train(config, run, *sets)
    assert result.code == 130, result.err


def fingerprint(run: Path) -> dict[str, str]:
    """Return the hash of each tensor file, and each training state without times."""
    content_of = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*run.rglob("*.safetensors"), *run.rglob("alignment/*")])
    }
    for path in sorted(run.glob("checkpoints/*/state.json")):
        state = json.loads(path.read_text())
        del state["checksum"]
        for key in [key for key in state["training"] if "seconds" in key]:
            del state["training"][key]
        content_of[str(path.relative_to(run))] = json.dumps(state, sort_keys=True)
    return content_of


def newest(files: dict[str, str]) -> dict[str, str]:
    """Return the files of the newest checkpoint in a fingerprint."""
    last = max(name.split("/")[1] for name in files if name.startswith("checkpoints/"))
    return {name: content for name, content in files.items() if f"/{last}/" in name}


def events(run: Path) -> list[str]:
    """Return the events in the journal of a run."""
    return [r["message"] for r in read_journal(run) if r["kind"] == "event"]


def spoil_losses(monkeypatch: pytest.MonkeyPatch, batches: set[int], value: float) -> None:
    """Multiply the losses of some training batches, counted from 1, by `value`."""
    count = [-FORECAST_LOSSES]

    def spoiled(*arguments: Any) -> Loss:
        loss = batch_loss(*arguments)
        count[0] += 1
        if count[0] in batches:
            return Loss(loss.smoothed * value, loss.plain * value, loss.tokens)
        return loss

    monkeypatch.setattr(gradient, "batch_loss", spoiled)
