"""The program itself, as its user runs it: training, stopping and going on, translating."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu.bench import Bench, Found, attempt
from nmt.data.manifest import load_manifest
from nmt.run.journal import read_journal


def section_train(bench: Bench) -> Found:
    """The program itself: its speed, and whether stopping and going on gives the same bits."""
    settings = bench.settings
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        most, half = settings.train_updates, settings.train_updates // 2
        prepared = load_manifest(Path(settings.corpus)).config

        def train(run: str, updates: int) -> float:
            tree = {
                "run": str(folder / run),
                "data": {**prepared, "dir": settings.corpus},
                "model": settings.shape(settings.main),
                "train": {
                    "batch_tokens": settings.tokens // 2, "max_updates": updates, "epochs": 1000,
                    "schedule": "constant", "validate_every": 1000, "validate_sentences": 8,
                    "log_samples": 0,
                },
            }  # fmt: skip
            config = folder / "config.yaml"
            config.write_text(json.dumps(tree), encoding="utf-8")
            began = time.perf_counter()
            command = [sys.executable, "-m", "nmt", "train", "--config", str(config)]
            done = subprocess.run(
                [*command, "--device", settings.device], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            (folder / f"{run}.log").write_text(done.stderr)
            return time.perf_counter() - began

        def bits(run: str) -> dict[str, str]:
            (newest,) = sorted((folder / run / "checkpoints").iterdir())[-1:]
            return {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(newest.glob("*.safetensors"))
            }

        def undisturbed() -> dict[str, Any]:
            seconds = train("whole", most)
            logs = [record for record in read_journal(folder / "whole") if record["kind"] == "log"]
            said = (folder / "whole.log").read_text().splitlines()
            return {
                "seconds": seconds, "log": logs[-1:],
                "said": [line for line in said if line.startswith(("recurrence", "precision"))],
            }  # fmt: skip

        def stopped() -> dict[str, Any]:
            train("parts", half)
            train("parts", most)
            return {"same_bits": bits("parts") == bits("whole"), "files": len(bits("whole"))}

        yield from attempt("undisturbed", undisturbed)
        yield from attempt("stopped and gone on", stopped)


def section_translate(bench: Bench) -> Found:
    """Translation, if there is a trained run."""
    if bench.settings.run is None:
        yield "translate", {"skipped": "no --run"}
        return

    def translated() -> Any:
        before = time.time()
        script = Path(__file__).resolve().parents[1] / "bench.py"
        command = [sys.executable, str(script), "translate", "--repeats", "2"]
        subprocess.run(
            [*command, "--model", str(bench.settings.run), "--device", bench.settings.device,
             "--batch-size", "256"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = [
            p for p in Path("docs/benchmarks").glob("translate-*") if p.stat().st_mtime > before
        ]
        return json.loads(found[0].read_text())

    yield from attempt("translate", translated)
