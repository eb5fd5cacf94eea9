"""Find and open models: run directories, packages, and the bundled package."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nmt.data.manifest import load_manifest
from nmt.errors import NmtError
from nmt.run.checkpoints import best_dev_bleu
from nmt.run.directory import Run, RunInfo, newest_run
from nmt.run.package import SUFFIX, Package, read_info
from nmt.run.records import load_record

logger = logging.getLogger(__name__)

BUNDLED_NAME = "everyday"
BUNDLED = Path(__file__).parents[1] / "models" / f"{BUNDLED_NAME}{SUFFIX}"

Model = Run | Package


def is_model(path: Path) -> bool:
    """Whether `path` names a directory, a package, or the bundled model."""
    return path.is_dir() or path.suffix == SUFFIX or _is_bundled(path)


def open_model(path: str | Path | None = None) -> Model:
    """Open a run directory or a package; None and ``everyday`` are the bundled package.

    Raises:
        NmtError: missing, damaged, of a newer format, or not a model.
    """
    if path is None or _is_bundled(Path(path)):
        return Package.open(BUNDLED)
    path = Path(path)
    return Package.open(path) if path.is_file() or path.suffix == SUFFIX else Run.open(path)


def default_model(runs: Path) -> Path:
    """Return the newest finished run in `runs`; without any, the bundled model.

    Raises:
        NmtError: there is neither.
    """
    try:
        return newest_run(runs)
    except NmtError:
        if not BUNDLED.exists():
            raise
    logger.info(f"model: {BUNDLED_NAME} (bundled; {runs}/ has no finished run)")
    return BUNDLED


@dataclass(frozen=True)
class Listed:
    """A model in the list of ``nmt models``.

    Attributes:
        name: what ``--model`` takes.
        date: end of the training, or its start, ISO 8601; empty if damaged.
        pairs: training pairs; None if unknown.
        dev_bleu: best dev BLEU, 0 to 100; None without a validation.
        size: bytes of the weights and all other files.
        state: ``finished``, ``not finished`` or ``damaged``.
    """

    name: str
    date: str
    pairs: int | None
    dev_bleu: float | None
    size: int
    state: str


def find_models(runs: Path, folder: Path) -> Iterator[Listed]:
    """Yield the bundled model, the packages in `folder` and the runs in `runs`."""
    if BUNDLED.exists():
        yield _list_package(BUNDLED_NAME, BUNDLED)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.is_file():
            yield _list_package(str(path), path)
    for path in sorted(runs.glob("*/run.json")):
        yield _list_run(path.parent)


def _list_package(name: str, path: Path) -> Listed:
    size = path.stat().st_size
    try:
        card = read_info(path).card
    except NmtError:
        return Listed(name, "", None, None, size, "damaged")
    bleu = None if card.dev is None else card.dev.bleu
    return Listed(name, card.date, card.pairs, bleu, size, _state(card.finished))


def _list_run(folder: Path) -> Listed:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        info = load_record(folder / "run.json", RunInfo)
        pairs = load_manifest(folder).train.pairs
    except NmtError:
        return Listed(str(folder), "", None, None, size, "damaged")
    bleu = best_dev_bleu(folder / "checkpoints")
    date = info.finished or info.created
    return Listed(str(folder), date, pairs, bleu, size, _state(info.finished is not None))


def _state(finished: bool) -> str:
    return "finished" if finished else "not finished"


def _is_bundled(path: Path) -> bool:
    return str(path) == BUNDLED_NAME and not path.exists() and BUNDLED.exists()
