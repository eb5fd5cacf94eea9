"""`nmt train` on the device: speed, and bit-identical resume."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu.harness import Bench, Results, attempt
from nmt.data.manifest import load_manifest
from nmt.run.journal import read_journal


def section_train(bench: Bench) -> Results:
    """Run `nmt train`; check that stopping and resuming gives the same bits."""
    settings = bench.settings
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        updates_all, half = settings.train_updates, settings.train_updates // 2
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
            start = time.perf_counter()
            command = [sys.executable, "-m", "nmt", "train", "--config", str(config)]
            done = subprocess.run(
                [*command, "--device", settings.device], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            (folder / f"{run}.log").write_text(done.stderr)
            return time.perf_counter() - start

        def bits(run: str) -> dict[str, str]:
            (newest,) = sorted((folder / run / "checkpoints").iterdir())[-1:]
            return {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(newest.glob("*.safetensors"))
            }

        def uninterrupted() -> dict[str, Any]:
            seconds = train("whole", updates_all)
            logs = [record for record in read_journal(folder / "whole") if record["kind"] == "log"]
            log_lines = (folder / "whole.log").read_text().splitlines()
            return {
                "seconds": seconds, "log": logs[-1:],
                "log_lines": [x for x in log_lines if x.startswith(("recurrence", "precision"))],
            }  # fmt: skip

        def resumed() -> dict[str, Any]:
            train("parts", half)
            train("parts", updates_all)
            return {"same_bits": bits("parts") == bits("whole"), "files": len(bits("whole"))}

        yield from attempt("uninterrupted", uninterrupted)
        yield from attempt("resumed", resumed)
