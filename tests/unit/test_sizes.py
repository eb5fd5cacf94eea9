"""Long files and functions of `nmt` state their reason in a comment."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "nmt").rglob("*.py"))
MAX_FILE, MAX_BODY = 400, 60


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES)
def test_long_files_and_functions_state_their_reason(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    long_functions = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and body_length(node) > MAX_BODY
        and f"# Over {MAX_BODY} lines: " not in (ast.get_source_segment(source, node) or "")
    ]
    assert long_functions == []
    if source.count("\n") > MAX_FILE:
        assert f"# Over {MAX_FILE} lines: " in source
