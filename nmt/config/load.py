"""Load a configuration: YAML, overrides, error messages."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from nmt.config.schema import (
    CleanConfig,
    Config,
    DataConfig,
    ModelConfig,
    SearchConfig,
    TrainConfig,
)
from nmt.config.sources import _SOURCES
from nmt.errors import NmtError

_MAX_NODES = 100_000


def _expanded_size(node: yaml.Node, sizes: dict[int, float]) -> float:
    """Return the number of nodes with aliases expanded; infinite if a node contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = float("inf")
        value = node.value if isinstance(node.value, list) else []
        children = [c for item in value for c in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses repeated keys and alias bombs; ``1e-3`` is a number."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _expanded_size(node, {}) > _MAX_NODES:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"more than {_MAX_NODES} values after expanding aliases",
                node.start_mark,
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # <<: *name
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key} is repeated", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a configuration file and apply ``section.key=value`` overrides.

    Raises:
        NmtError: the file is missing or not YAML, or a key is unknown, repeated, of the wrong
            type or out of range. The message contains the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NmtError(
            f"{path}: no such configuration file",
            _similar_config(path),
        ) from None
    except UnicodeDecodeError:
        raise NmtError(f"{path}: not valid UTF-8, so not a configuration file") from None
    except OSError as error:
        raise NmtError(f"{path}: {error.strerror}") from error
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise NmtError(f"{path}: not a configuration: no sections in it")
    for override in overrides or []:
        _override(tree, override)
    return build_config(tree, str(path))


def build_config(tree: dict[str, Any], origin: str) -> Config:
    """Validate a tree of plain values.

    Raises:
        NmtError: with `origin`, the key, and what is expected.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, origin) from None


def dump_config(config: Config) -> str:
    """Return the configuration as YAML, with all defaults."""
    return yaml.safe_dump(
        config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def _parse(text: str, origin: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except RecursionError:
        raise NmtError(f"{origin}: not a configuration: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = origin if mark is None else f"{origin}:{mark.line + 1}"
        raise NmtError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from None


# Keys whose values are text: ``run=runs/a #2`` has no comment, ``run=2024-05-01`` is not a date.
_TEXT_KEYS = {"run", "dir", "path", "src", "trg"}


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise NmtError(
            f"--set {override}: not of the form section.key=value",
            "for example: --set train.epochs=5",
        )
    node: Any = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise NmtError(
                    f"--set {override}: {'.'.join(parts[:depth])} is a list of {len(node)}, "
                    f"{part} is not a valid index"
                )
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
            if not last:
                node.setdefault(part, {})
        else:
            raise NmtError(f"--set {override}: {'.'.join(parts[:depth])} has no keys under it")
        if last:
            is_text = part in _TEXT_KEYS and not value.startswith(("[", "{", "'", '"'))
            node[index] = value if is_text else _parse(value, f"--set {override}")
        else:
            node = node[index]


def _explain(error: ValidationError, origin: str) -> NmtError:
    first = min(error.errors(), key=_unlikely)
    # A discriminated union puts its tag into the location; the tag is not a key of the file.
    tags = {*_SOURCES, "int", "float", "literal['auto']", "constrained-int", "constrained-float"}
    parts = [str(part) for part in first["loc"]]
    key = ".".join(p for p in parts if p not in tags and not p.startswith("tagged-union"))
    kind, value = first["type"], first.get("input")
    if kind == "extra_forbidden":
        known = _known_keys(parts)
        close = difflib.get_close_matches(parts[-1], known, n=1) or find_keys(parts[-1])[:1]
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
        return NmtError(f"{origin}: unknown key {key}", hint)
    if kind == "missing":
        return NmtError(f"{origin}: key {key} is missing")
    if kind == "value_error":
        return NmtError(f"{origin}: {str(first['msg']).removeprefix('Value error, ')}")
    if kind == "union_tag_invalid":
        return NmtError(
            f"{origin}: {key}: unknown source {_shorten(repr(_get(value, 'source')))}",
            _close_source(value),
        )
    if kind == "union_tag_not_found":
        return NmtError(f"{origin}: {key}: key source is missing", f"one of: {', '.join(_SOURCES)}")
    message = str(first["msg"])
    return NmtError(
        f"{origin}: {key}: {message[0].lower()}{message[1:]}, not {_shorten(repr(value))}"
    )


def _unlikely(error: Any) -> int:
    """Return the rank of an error: the first of the lowest rank is reported."""
    if error["type"] == "extra_forbidden":
        return 0  # a misspelt required key is also reported as missing
    # A mapping instead of a number is reported as an invalid source.
    return 2 if error["type"] == "int_type" and isinstance(error["input"], dict) else 1


def _shorten(text: str, max_chars: int = 100) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else value


def _close_source(value: Any) -> str:
    close = difflib.get_close_matches(str(_get(value, "source")), _SOURCES, n=1)
    return f"did you mean {close[0]}?" if close else f"one of: {', '.join(_SOURCES)}"


def find_keys(name: str) -> list[str]:
    """Return the full keys whose last part is `name`: ``model.dropout`` for ``dropout``."""
    sections: dict[str, type[BaseModel]] = {
        "train": TrainConfig, "model": ModelConfig, "search": SearchConfig, "data": DataConfig,
        "data.clean": CleanConfig,
    }  # fmt: skip
    return [f"{key}.{name}" for key, section in sections.items() if name in section.model_fields]


def _similar_config(path: Path) -> str:
    """Return a hint: a file with a similar name, an installed recipe, or how to write one."""
    folders = (path.parent, Path("configs"))
    files = {str(file): file for folder in folders for file in sorted(folder.glob("*.y*ml"))}
    for file in files.values():
        if file.stem == path.stem:
            return f"did you mean {file}?"
    close = difflib.get_close_matches(str(path), files, n=1)
    if close:
        return f"did you mean {close[0]}?"
    if (Path(__file__).parents[1] / "recipes" / f"{path.stem}.yaml").exists():
        return f"nmt init --recipe {path.stem} --output {path.stem}.yaml"
    return "nmt init TEXT writes a configuration for your text"


def _known_keys(parts: list[str]) -> list[str]:
    """Return the keys of the section that contains the unknown key."""
    sections: dict[str, type[BaseModel]] = {
        "data": DataConfig, "model": ModelConfig, "train": TrainConfig, "search": SearchConfig,
        "clean": CleanConfig, **_SOURCES,
    }  # fmt: skip
    for part in reversed(parts[:-1]):
        if part in sections:
            return list(sections[part].model_fields)
    return list(Config.model_fields)
