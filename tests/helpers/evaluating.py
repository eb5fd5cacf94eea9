"""Files and systems for tests of `nmt evaluate`."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.preparing import Run

REFERENCES = [f"the {n} cats sat on the {n} mats today" for n in range(60)]
WORSE = [line.replace("sat on", "is at") for line in REFERENCES[:-1]] + [REFERENCES[-1]]
MIXED = ["quite another thing", *WORSE[1:]]


def write(path: Path, *lines: str) -> Path:
    """Write lines to a file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def evaluate_file(run: Run, folder: Path, lines: list[str], name: str) -> Path:
    """Score lines against `REFERENCES`, written to `folder`/ref; return the report."""
    ref, hyp = write(folder / "ref", *REFERENCES), write(folder / f"{name}.txt", *lines)
    run("evaluate", hyp, "--ref", ref, "--output", folder / name)
    return folder / name / "report.json"
