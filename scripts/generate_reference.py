#!/usr/bin/env python3
"""Generate docs/reference/cli.md and configuration.md from the options and the config schema.

python scripts/generate_reference.py          # write both pages
python scripts/generate_reference.py --check  # exit with 1 if a page is out of date
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from nmt.cli import app
from nmt.config import schema, sources

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
SECTIONS: list[tuple[str, str, type[BaseModel]]] = [
    ("Top level", "", schema.Config),
    ("data", "data.", schema.DataConfig),
    ("data.clean", "data.clean.", schema.CleanConfig),
    ("model", "model.", schema.ModelConfig),
    ("train", "train.", schema.TrainConfig),
    ("search", "search.", schema.SearchConfig),
    *((f"source: {name}", "", source) for name, source in sources._SOURCES.items()),
]


def cli_page() -> str:
    """Return the reference of the commands and their options."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        group.help,
        "",
        "Results go to stdout, messages to stderr. Exit codes: [Files and exit codes](files.md).",
        "`nmt --install-completion` enables completion in the shell.",
    ]
    for name, command in group.commands.items():
        paragraphs = inspect.cleandoc(command.help).split("\b\n")
        lines += ["", f"## nmt {name}", "", paragraphs[0].strip()]
        lines += ["", "```sh", inspect.cleandoc("  " + paragraphs[1].rstrip()), "```"]
        groups: dict[str, list[str]] = {}
        for parameter in command.params:
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            groups.setdefault(panel, []).append(_option_row(parameter))
        for panel in sorted(groups, key=lambda panel: panel != "Options"):
            lines += ["", f"| {panel.lower()} | |", "| --- | --- |", *groups[panel]]
    return "\n".join(lines) + "\n"


def _option_row(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    name = " ".join(parameter.opts) if is_option else ""
    metavar = "" if getattr(parameter, "is_flag", False) else parameter.metavar or ""
    text = parameter.help
    if parameter.required:
        text += " Required."
    elif isinstance(parameter.default, int | float | str) and parameter.default not in (False, ""):
        text += f" Default: {parameter.default}."
    return f"| `{f'{name} {metavar}'.strip()}` | {_cell(text)} |"


def configuration_page() -> str:
    """Return the reference of the configuration keys."""
    lines = [
        "# Configuration",
        "",
        "One YAML file configures `prepare` and `train`. `--set section.key=value` overrides one.",
        "Unknown keys are errors. `auto` is resolved from the corpus or the machine and recorded",
        "in the run directory.",
    ]
    for title, prefix, model in SECTIONS:
        properties = model.model_json_schema()["properties"]
        lines += ["", f"## {title}", "", inspect.cleandoc(model.__doc__ or "").replace("``", "`")]
        lines += ["", "| key | values | default | |", "| --- | --- | --- | --- |"]
        for key, value in properties.items():
            if key in ("data", "model", "train", "search", "clean"):
                continue
            field = model.model_fields[key]
            default = "required" if field.is_required() else _default(value.get("default", []))
            description = _cell(value.get("description", ""))
            lines.append(f"| `{prefix}{key}` | {_values(value)} | {default} | {description} |")
    return "\n".join(lines) + "\n"


def _values(value: Mapping[str, Any]) -> str:
    """Describe the values that a JSON schema allows."""
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_values(choice) for choice in value["anyOf"]))
    if "oneOf" in value:
        return "a source"
    if "prefixItems" in value:
        return "list of " + ", ".join(_values(item) for item in value["prefixItems"])
    if value.get("type") == "array":
        return f"list of {_values(value['items']).removeprefix('a ')}s"
    if value.get("type") == "null":
        return "`null`"
    if value.get("format") == "path":
        return "path"
    return " ".join([str(value.get("type", "section")), *_bounds(value)])


def _bounds(value: Mapping[str, Any]) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    for name, sign in signs.items():
        if name in value:
            yield f"{sign} {value[name]:g}"


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages, or compare them."""
    pages = {"cli.md": cli_page(), "configuration.md": configuration_page()}
    if "--check" not in sys.argv[1:]:
        for name, text in pages.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return
    stale = [
        name
        for name, text in pages.items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text(encoding="utf-8") != text
    ]
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run python scripts/generate_reference.py")


if __name__ == "__main__":
    main()
