"""Runs ``nmt train`` again and again, killing it, until it ends by itself.

    python -m tests.helpers.killing CONFIG RUN KILLS SEED

Each training is a forked child, so that PyTorch is imported once. The child reports
where it is; when it comes to the place drawn for it, this process sends SIGKILL:

- ``update``: up to 30 ms after the n-th update has begun, so anywhere in one;
- ``write``: the child is held before or after the n-th call that changes a file or folder
  (so inside the writing of a checkpoint), and killed there.

Prints one JSON object: the kills, and the exit code of the training that was let through.
"""

import functools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import nmt.io.write
import nmt.run.checkpoints
from nmt.cli import main
from nmt.train import gradient, loop

with suppress(ImportError):  # once for all children
    import matplotlib.backends.backend_svg  # noqa: F401

SAVE_EVERY = 7  # updates


class Place:
    """Where a child is to be killed, and the telling of it."""

    def __init__(self, kind: str, number: int, pipe: int) -> None:
        self.kind, self.number, self.pipe = kind, number, pipe

    def reached(self, kind: str, name: str) -> None:
        if kind != self.kind:
            return
        self.number -= 1
        if self.number == 0:
            os.write(self.pipe, name.encode())
            if kind == "write":
                time.sleep(3600)

    def watch(self, owner: Any, name: str) -> None:
        """Report before and after every call of a function that writes."""
        call: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **keys: Any) -> Any:
            self.reached("write", f"before {name}")
            result = call(*args, **keys)
            self.reached("write", f"after {name}")
            return result

        setattr(owner, name, watched)


def child(arguments: list[str], place: Place | None, log: Path) -> NoReturn:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    # By updates instead of minutes, so that two trainings keep the same checkpoints.
    loop.train = functools.partial(  # type: ignore[assignment]
        loop.train, save_due=lambda state: state.update % SAVE_EVERY == 0
    )
    if place is not None:
        compute = gradient.GradientComputer.compute

        def computed(*args: Any, **keys: Any) -> Any:
            if not keys.get("alone"):
                place.reached("update", "update")
            return compute(*args, **keys)

        gradient.GradientComputer.compute = computed  # type: ignore[method-assign]
        for owner, name in (
            (nmt.run.checkpoints, "save_file"), (nmt.io.write.os, "fsync"), (Path, "rename"),
            (Path, "replace"), (Path, "write_text"), (shutil, "rmtree"),
        ):  # fmt: skip
            place.watch(owner, name)
    sys.argv = ["nmt", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def run(arguments: list[str], kind: str | None, number: int, delay: float, log: Path) -> Any:
    """One training; where it was killed, or its exit code if it came to its end."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        child(arguments, None if kind is None else Place(kind, number, into), log)
    os.close(into)
    name = os.read(out, 100).decode()  # empty once the child has ended
    os.close(out)
    if name:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return name if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def all_runs(config: str, folder: str, kills: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    log = Path(folder).with_suffix(".log")
    arguments = ["train", "--config", config, "--device", "cpu", "--set", f"run={folder}"]
    killed = []
    for attempt in range(kills):
        kind = ("write", "update")[attempt % 2]
        number = draw.randint(1, 60 if kind == "write" else 15)
        delay = draw.uniform(0, 0.03) if kind == "update" else 0.0
        where = run(arguments, kind, number, delay, log)
        if isinstance(where, int):
            return {"killed": killed, "code": where, "early": True}
        killed.append({"where": where, "number": number})
    return {"killed": killed, "code": run(arguments, None, 0, 0.0, log)}


if __name__ == "__main__":
    print(json.dumps(all_runs(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
