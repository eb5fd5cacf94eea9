"""Run the command line in this process or in another one, and check refusals."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from nmt.cli import main

ROOT = Path(__file__).parents[2]


class Result(NamedTuple):
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


Nmt = Callable[..., Result]


def nmt(*arguments: object) -> Result:
    """Run ``nmt`` in this process, without the time to import PyTorch."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
    before, sys.argv = sys.argv, ["nmt", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
    return Result(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]


def nmt_process(*arguments: object, stdin: bytes = b"", cwd: Path | None = None) -> Result:
    """Run ``nmt`` in another process, with bytes as stdin."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nmt", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=300,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_refused(result: Result, *parts: str, code: int = 2) -> None:
    """Check the exit code, that stdout is empty, and that the error and hint contain `parts`."""
    lines = [line for line in result.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert (result.code, result.out) == (code, ""), result.err
    assert lines, result.err
    for part in parts:
        assert any(part in line for line in lines), result.err
