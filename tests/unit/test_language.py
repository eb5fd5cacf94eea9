"""Plain technical English: banned phrases in text, banned names in code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Corpus text, such as "look for" as a translation.
CORPORA = [ROOT / "tests/helpers/corpus.py", ROOT / "tests/helpers/toy.py"]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder, pattern in [
        ("nmt", "**/*.py"),
        ("scripts", "**/*.py"),
        ("tests", "**/*.py"),
        ("docs", "**/*.md"),
        (".", "*.md"),
    ]
    for path in (ROOT / folder).glob(pattern)
    if path not in (Path(__file__), *CORPORA)
)
# Phrase: what to write instead.
PHRASES = {
    r"(go|goes|going|went|gone) on\b(?! (GPU|CPU|disk|stdout|stderr))": "resume, continue",
    r"anew": "again, re-",
    r"the fence": "leakage check, held-out split",
    r"(is|are) no (number|link|list|file|text|word|pair|run|model|reason)": "is not a",
    r"(look|looks|looked|looking) (at|into|for)": "attend to, read, search",
    r"(a|the|its|own|another) ruler|ruler of": "measure, benchmark",
    r"the house|house's|house form|rooms? (of|is|are|import)": "layer, package, the project",
    r"twin": "reference implementation",
    r"(some|every|any)body": "each worker, the user",
    r"of (its|their|his) own": "own, separate",
    r"shall": "must, should",
    r"(stand|stands|stood) (twice|beside|in|on|for|there|where|before|behind)": "is, occurs",
    r"for want of": "without",
    r"by force": "forced decoding",
    r"front doors?": "entry point",
    r"one road|the road": "path, pipeline",
    r"(is|are|was|were) told": "print, report",
}
NAMES = {
    "asked", "asks", "everybody", "found", "given", "least", "looks", "made", "most", "one",
    "other", "own", "there",
}  # fmt: skip
PREFIXES = ("_MOST_", "_LEAST_", "_FEWEST_", "_LARGEST_", "_LONGEST", "MOST_", "LEAST_")


def banned_phrases(text: str) -> list[str]:
    found = []
    for phrase, instead in PHRASES.items():
        for match in re.finditer(rf"\b(?:{phrase})\b", text, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{line}: {match.group()!r}: write {instead}")
    return found


def prose(source: str) -> str:
    """Return the comments and strings of Python code on their lines, without the code."""
    lines = [""] * (source.count("\n") + 2)
    strings = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in strings:
            for number, line in enumerate(token.string.split("\n")):
                lines[token.start[0] - 1 + number] += " " + line
    return "\n".join(lines)


def banned_names(source: str) -> list[str]:
    """Return names without meaning, except targets of loops and comprehensions."""
    tree = ast.parse(source)
    loops = {
        id(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.For | ast.comprehension)
        for name in ast.walk(node.target)
    }
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in loops:
            names.append((node.lineno, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.attr))
        elif isinstance(node, ast.arg):
            names.append((node.lineno, node.arg))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append((node.lineno, node.name))
    return [
        f"{line}: the name {name}: say what it contains"
        for line, name in sorted(names)
        if name.strip("_") in NAMES or name.startswith(PREFIXES)
    ]


def complaints(path: str) -> list[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".py"):
        return banned_phrases(text)
    return banned_phrases(prose(text)) + banned_names(text)


@pytest.mark.parametrize("path", FILES)
def test_language_is_plain(path: str) -> None:
    assert [f"{path}:{line}" for line in complaints(path)] == []
