"""Write the pinned help texts anew, after a change on purpose: python tests/golden/update.py."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
for command in ("", "prepare", "train", "translate", "evaluate", "align"):
    done = subprocess.run(
        [sys.executable, "-m", "nmt", *command.split(), "--help"],
        capture_output=True, check=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    (HERE / f"help-{command or 'nmt'}.txt").write_bytes(done.stdout)
