"""The house's fourth beam: rooms import downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nmt

ROOT = Path(nmt.__file__).parent
RANKS = {
    "errors": 0, "symbols": 0, "log": 0, "options": 1,
    "io": 1, "text": 1, "config": 1, "device": 1, "distributed": 2, "signals": 1,
    "model": 2, "data": 2,
    "prepare": 3, "run": 3, "align": 4,
    "translate": 5, "evaluate": 5, "train": 6, "cli": 7,
    "__init__": 8, "__main__": 8,
}  # fmt: skip


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nmt"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("nmt.")}
    return found & RANKS.keys()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_downwards_only(path: Path) -> None:
    here = RANKS[room(path)]
    upwards = {name for name in imported_rooms(path) if RANKS[name] > here}
    assert not upwards


def test_sacrebleu_is_imported_in_one_place() -> None:
    places = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if "sacrebleu" in path.read_text(encoding="utf-8").replace("sacreBLEU", "")
        and any(line.startswith(("import sacrebleu", "from sacrebleu"))
                for line in path.read_text(encoding="utf-8").splitlines())
    ]  # fmt: skip
    assert places == ["evaluate/metrics.py"]


def test_nothing_is_unpickled() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for danger in ("torch.load(", "pickle.load", "allow_pickle=True"):
            assert danger not in text, path
