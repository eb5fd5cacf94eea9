#!/usr/bin/env python3
"""Check and measure training on one GPU, in at most nine minutes.

    python scripts/bench_gpu.py --corpus data/base

Every section runs in a process with a time limit: a section that fails, hangs or loses the GPU
costs its own results only. Results are written after each step.
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
from typing import Annotated, Any

import torch
import typer
from gpu.checks import section_checks, section_update
from gpu.device import section_ceilings
from gpu.harness import Bench, Results, Settings
from gpu.inside import section_main
from gpu.program import section_train
from gpu.speed import section_launched, section_sweep

from nmt import cli
from nmt.data.manifest import load_manifest
from nmt.errors import NmtError
from nmt.run.journal import environment

HERE = Path(__file__).resolve()

# Most important first, with the time limit in seconds.
SECTIONS: dict[str, tuple[Callable[[Bench], Results], int]] = {
    "ceilings": (section_ceilings, 60),
    "checks": (section_checks, 150),
    "update": (section_update, 90),
    "main": (section_main, 90),
    "sweep": (section_sweep, 90),
    "train": (section_train, 120),
    "launched": (section_launched, 90),
}
_MIN_SECONDS = 10  # start-up of a section's process; with less time left it is skipped


def run_section(name: str, settings: Settings, path: Path) -> None:
    """Run one section in this process and write its results to `path` after each step."""
    results: dict[str, Any] = {}
    start = time.perf_counter()
    function, _ = SECTIONS[name]
    try:
        for key, value in function(Bench(settings)):
            results[key] = value
            path.write_text(json.dumps(results))
    except Exception:
        results["error"] = traceback.format_exc(limit=-6)[-3000:]
    results["section_seconds"] = round(time.perf_counter() - start, 1)
    path.write_text(json.dumps(results))


def run_in_process(name: str, settings: Settings, path: Path, seconds: float) -> None:
    """Run one section in a process, for at most `seconds`."""
    path.unlink(missing_ok=True)
    settings_path = path.with_suffix(".settings")
    settings_path.write_text(json.dumps(asdict(settings)))
    log = path.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(HERE), "section", name, str(settings_path), str(path)],
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
                os.killpg(process.pid, signal.SIGKILL)  # with its child processes
            process.wait()
    if error is not None:
        results = json.loads(path.read_text()) if path.exists() else {}
        output = log.read_text(errors="replace")[-3000:]
        path.write_text(json.dumps({**results, "error": f"{error}\n{output}"}))


def run_all(
    settings: Settings, output: Path, seconds: float, only: list[str], *, separate: bool = True
) -> dict[str, Any]:
    """Run the sections while time is left and write `output` after each.

    Raises:
        NmtError: unknown section.
    """
    for name in only:
        if name not in SECTIONS:
            raise NmtError(f"--only {name}: no such section", f"one of: {', '.join(SECTIONS)}")
    deadline = time.monotonic() + seconds
    record: dict[str, Any] = {
        "benchmark": "gpu",
        "settings": {k: v for k, v in asdict(settings).items() if k != "corpus"},
        "corpus": Path(settings.corpus).name,
        **environment(torch.device(settings.device)),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, limit) in SECTIONS.items():
            if only and name not in only:
                continue
            path = Path(folder) / f"{name}.json"
            left = deadline - time.monotonic()
            if left < _MIN_SECONDS:
                record[name] = {"skipped": f"{max(left, 0):.0f} s left"}
            elif separate:
                run_in_process(name, settings, path, min(limit, left))
            else:
                run_section(name, settings, path)
            if path.exists():
                record[name] = json.loads(path.read_text())
            record["seconds"] = round(seconds - (deadline - time.monotonic()), 1)
            output.write_text(json.dumps(record, indent=1) + "\n")
            print(f"{name}: {summary(record[name])}", flush=True)
    return record


def summary(results: dict[str, Any]) -> str:
    """Return one line for the terminal."""
    steps = {key: value for key, value in results.items() if isinstance(value, dict)}
    rate = "target_tokens_per_second"
    parts = [f"{key} {value[rate]:,} tokens/s" for key, value in steps.items() if rate in value]
    if "error" in results:
        parts.append("FAILED: " + str(results["error"]).strip().splitlines()[-1][:200])
    if "skipped" in results:
        parts.append(f"skipped, {results['skipped']}")
    if "compared" in steps.get("kernels", {}):
        kernels = steps["kernels"]
        parts.append(f"{kernels['compared']} compared, {len(kernels['failed'])} differ")
    parts += [f"differs: {key}" for key, value in steps.items() if value.get("passed") is False]
    parts += [f"failed: {key}" for key, value in steps.items() if "error" in value]
    return "; ".join(parts) or "done"


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    corpus: Annotated[Path, typer.Option(help="a prepared corpus")],
    seconds: Annotated[float, typer.Option(help="time limit of all sections")] = 520,
    only: Annotated[list[str] | None, typer.Option(help="a section; repeatable")] = None,
    output: Annotated[Path, typer.Option(help="results")] = Path("docs/benchmarks/gpu.json"),
) -> None:
    """Check kernels and updates on a GPU, then measure them."""
    load_manifest(corpus)
    if not torch.cuda.is_available():
        raise NmtError(
            f"PyTorch {torch.__version__} finds no GPU",
            "check the kernels without one: "
            "TRITON_INTERPRET=1 python scripts/gpu/kernel_checks.py --device cpu",
        )
    record = run_all(Settings(str(corpus.resolve())), output, seconds, only or [])
    print(f"{output}: {record['seconds']:.0f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["section"]:
        _name, _settings, _path = sys.argv[2:]
        run_section(_name, Settings(**json.loads(Path(_settings).read_text())), Path(_path))
    else:
        cli.run(app)
