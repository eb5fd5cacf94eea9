#!/usr/bin/env python3
"""Run the sections of `scripts/bench.py gpu`, each apart, and write down what they find.

Each section runs in a process of its own with a time limit: one that fails, hangs or takes
the GPU down with it costs its own numbers only, and what it had found by then is kept. The
sections themselves are in `gpu/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from gpu.bench import Bench, Found, Settings
from gpu.checks import section_checks, section_update
from gpu.device import section_ceilings
from gpu.inside import section_kernels, section_main
from gpu.program import section_train, section_translate
from gpu.speed import section_launched, section_shapes, section_sweep, section_variants

from nmt.errors import NmtError
from nmt.run.journal import environment

HERE = Path(__file__).resolve()

# In the order of what is most worth knowing, with the most seconds each may take.
SECTIONS: dict[str, tuple[Callable[[Bench], Found], int]] = {
    "ceilings": (section_ceilings, 60),
    "checks": (section_checks, 150),
    "update": (section_update, 90),
    "main": (section_main, 90),
    "kernels": (section_kernels, 90),
    "sweep": (section_sweep, 90),
    "train": (section_train, 120),
    "launched": (section_launched, 90),
    "variants": (section_variants, 60),
    "shapes": (section_shapes, 60),
    "translate": (section_translate, 60),
}
_START_SECONDS = 10  # of a section's process, before it has measured anything


def run_section(name: str, settings: Settings, path: Path) -> None:
    """Run one section here; `path` holds what was found after each step."""
    found: dict[str, Any] = {}
    began = time.perf_counter()
    function, _ = SECTIONS[name]
    try:
        for key, value in function(Bench(settings)):
            found[key] = value
            path.write_text(json.dumps(found))
    except Exception:
        found["error"] = traceback.format_exc(limit=-6)[-3000:]
    found["section_seconds"] = round(time.perf_counter() - began, 1)
    path.write_text(json.dumps(found))


def run_apart(name: str, settings: Settings, path: Path, seconds: float) -> None:
    """Run one section in a process of its own, no longer than `seconds`."""
    path.unlink(missing_ok=True)
    asked = path.with_suffix(".settings")
    asked.write_text(json.dumps(asdict(settings)))
    log = path.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(HERE), name, str(asked), str(path)],
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        error = None
        try:
            if process.wait(seconds):
                error = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {seconds:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it, and the programs that it started
            process.wait()
    if error is not None:
        found = json.loads(path.read_text()) if path.exists() else {}
        said = log.read_text(errors="replace")[-3000:]
        path.write_text(json.dumps({**found, "error": f"{error}\n{said}"}))


def run_all(
    settings: Settings, output: Path, seconds: float, only: list[str], *, apart: bool = True
) -> dict[str, Any]:
    """Run the sections while there is time; `output` is written after each.

    Raises:
        NmtError: an unknown section.
    """
    for name in only:
        if name not in SECTIONS:
            raise NmtError(f"--only {name}: no such section", f"one of: {', '.join(SECTIONS)}")
    deadline = time.monotonic() + seconds
    record: dict[str, Any] = {
        "benchmark": "gpu",
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("corpus", "run")},
        "corpus": Path(settings.corpus).name,
        **environment(torch.device(settings.device)),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, most) in SECTIONS.items():
            if only and name not in only:
                continue
            path = Path(folder) / f"{name}.json"
            left = deadline - time.monotonic()
            if left < _START_SECONDS:
                record[name] = {"skipped": f"{max(left, 0):.0f} s were left"}
            elif apart:
                run_apart(name, settings, path, min(most, left))
            else:
                run_section(name, settings, path)
            if path.exists():
                record[name] = json.loads(path.read_text())
            record["seconds"] = round(seconds - (deadline - time.monotonic()), 1)
            output.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}: {summary(record[name])}", flush=True)
    return record


def summary(found: dict[str, Any]) -> str:
    """One line for the terminal."""
    results = {key: value for key, value in found.items() if isinstance(value, dict)}
    rate = "target_tokens_per_second"
    rates = {key: value[rate] for key, value in results.items() if rate in value}
    errors = [key for key, value in results.items() if "error" in value]
    wrong = [key for key, value in results.items() if value.get("passed") is False]
    parts = [f"{key} {rate:,} tokens/s" for key, rate in rates.items()]
    if "error" in found:
        parts.append("FAILED: " + str(found["error"]).strip().splitlines()[-1][:200])
    if "skipped" in found:
        parts.append(f"skipped, {found['skipped']}")
    if "kernels" in found and "compared" in found["kernels"]:
        kernels = found["kernels"]
        parts.append(f"{kernels['compared']} compared, {len(kernels['failed'])} differ")
    parts += [f"differs: {key}" for key in wrong] + [f"failed: {key}" for key in errors]
    return "; ".join(parts) or "done"


if __name__ == "__main__":
    _name, _settings, _path = sys.argv[1:]
    run_section(_name, Settings(**json.loads(Path(_settings).read_text())), Path(_path))
