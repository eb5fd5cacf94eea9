"""Imports point to lower layers, and no files import each other in a circle."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = [
    {"errors", "symbols", "version"},
    {"config", "device", "log", "options", "signals", "text"},
    {"distributed", "io", "model"},
    {"data", "viz"},
    {"run"},
    {"align", "prepare"},
    {"translate"},
    {"evaluate", "serve"},
    {"train"},
    {"init"},
    {"cli", "__init__"},
    {"__main__"},
]
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "nmt").rglob("*.py")
}


@cache
def imports(module: str) -> set[str]:
    """Return the modules of the package that a file imports, also in functions or for types."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in submodules}
    return names & MODULES.keys() - {module}


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_to_lower_layers(module: str) -> None:
    upwards = {
        name
        for name in imports(module)
        if layer(name) != layer(module) and RANKS[layer(name)] >= RANKS[layer(module)]
    }
    assert not upwards


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        graph = {module: imports(module) for module in MODULES}
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_sacrebleu_is_imported_in_one_place() -> None:
    places = [
        module
        for module, path in MODULES.items()
        if any(
            line.startswith(("import sacrebleu", "from sacrebleu"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert places == ["nmt.evaluate.metrics"]


def test_nothing_is_unpickled() -> None:
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        for call in ("torch.load(", "pickle.load", "allow_pickle=True"):
            assert call not in text, path
