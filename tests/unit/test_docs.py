"""Relative links and anchors in every Markdown file, without mkdocs."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import nmt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for folder in ("", "data", "docs")
    for path in (ROOT / folder).glob("**/*.md" if folder == "docs" else "*.md")
)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Heading ids as GitHub and mkdocs make them, for headings of ASCII letters."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_documentation_links_stay_inside_the_site() -> None:
    docs = ROOT / "docs"
    for page in docs.glob("**/*.md"):
        for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if not re.match(r"[a-z]+:|#", target):
                assert (page.parent / target.partition("#")[0]).resolve().is_relative_to(docs), page


@pytest.mark.parametrize("public", [nmt.Translator, nmt.Translation], ids=lambda c: c.__name__)
def test_python_api_page_matches_the_code(public: type) -> None:
    page = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    section = page.split(f"## {public.__name__}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    members = re.findall(r"`([^`]+)`", " ".join(cells))
    assert members
    for member in members:
        name, _, arguments = member.partition("(")
        assert hasattr(public, name) or name in public.__annotations__
        if arguments:
            parameters = inspect.signature(getattr(public, name)).parameters.values()
            signature = inspect.Signature(
                [
                    parameter.replace(annotation=inspect.Parameter.empty)
                    for parameter in parameters
                    if parameter.name != "self"
                ]
            )
            assert f"({arguments}".replace('"', "'") == str(signature)


def test_the_readme_fits_two_screens() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "bash scripts/quickstart.sh" in text
    assert "bash scripts/test.sh" in text
