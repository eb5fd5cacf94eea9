"""The manifest of a packed corpus: what it was made from and what it contains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nmt.config.schema import DataConfig
from nmt.errors import NmtError
from nmt.io.write import file_sha256

FORMAT = 4
MANIFEST = "manifest.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainSize(_Model):
    """Size of the packed training set, repeats included."""

    pairs: int
    src_pieces: int
    trg_pieces: int


class SetSize(_Model):
    """Size of dev or test."""

    pairs: int


class TokenizerInfo(_Model):
    """One side's tokenizer."""

    pieces: int
    simplify: bool
    sha256: str


class TextStatistics(_Model):
    """Counts for the report; see `nmt.prepare.statistics`.

    Attributes:
        counts: by name: scripts, punctuation, Latin letters.
        lengths: histograms by name.
        unused_pieces: vocabulary entries that do not occur in train, by side.
        byte_characters: most frequent characters spelled in bytes, by side.
        byte_totals: different and total characters spelled in bytes, by side.
        pieces: most frequent pieces, by side.
    """

    counts: dict[str, int]
    lengths: dict[str, list[int]]
    unused_pieces: dict[str, int]
    byte_characters: dict[str, list[tuple[str, int]]]
    byte_totals: dict[str, tuple[int, int]]
    pieces: dict[str, list[tuple[str, int]]]


class Identity(_Model):
    """Everything a packed corpus depends on, except standard input.

    Attributes:
        format: version of the file formats.
        program: version of this program.
        config: the data section of the configuration without `dir`.
        sources: SHA-256 by file; None for standard input.
    """

    format: int
    program: str
    config: dict[str, Any]
    sources: dict[str, str | None]


class Manifest(Identity):
    """The contents of ``manifest.json``.

    Attributes:
        read: pairs read, by source.
        train: size of the training set.
        dev: size of dev.
        test: size of test.
        repeated: training pairs added by weights above 1.
        dropped: number of dropped pairs by reason, the most frequent first.
        examples: some dropped pairs by reason.
        warnings: shown by `nmt train` too.
        statistics: of the text.
        tokenizers: by side.
        python: version of Python.
        files: SHA-256 by file name in the folder.
    """

    read: dict[str, int]
    train: TrainSize
    dev: SetSize
    test: SetSize
    repeated: int
    dropped: dict[str, int]
    examples: dict[str, list[tuple[str, str]]]
    warnings: list[str]
    statistics: TextStatistics
    tokenizers: dict[str, TokenizerInfo]
    python: str
    files: dict[str, str] = {}


def load_manifest(folder: Path) -> Manifest:
    """Read the manifest of a packed corpus.

    Raises:
        NmtError: not prepared, damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NmtError(
            f"{folder}: no prepared corpus here", "run nmt prepare with the same --config first"
        ) from None
    except OSError as error:
        raise NmtError(f"{path}: {error.strerror or error}", "run nmt prepare again") from error
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        version = _format_of(content)
        if version is not None and version != FORMAT:
            raise NmtError(
                f"{path}: corpus format {version}, this program reads {FORMAT}",
                "run nmt prepare again",
            ) from None
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        detail = f"{place}: {first['msg']}" if place else first["msg"]
        raise NmtError(f"{path}: damaged ({detail})", "run nmt prepare again") from None


class _AnyFormat(BaseModel):
    format: int


def _format_of(content: bytes) -> int | None:
    try:
        return _AnyFormat.model_validate_json(content).format
    except ValidationError:
        return None


def check_prepared(data: DataConfig, manifest: Manifest) -> None:
    """Refuse a corpus that was prepared with another data section or from other files.

    The checksums of source files are compared where the files still exist.

    Raises:
        NmtError: with the keys and their values, or the changed files.
    """
    config = data.model_dump(mode="json", exclude={"dir"})
    changed = [
        f"{key}={old}, the configuration says {new}"
        for key, old, new in _differences("data", manifest.config, config)
    ]
    hint = "run nmt prepare with the same --config and --set"
    if changed:
        raise NmtError(
            f"{data.dir}: was prepared with {'; '.join(changed)}", f"{hint}, or put the key back"
        )
    files = [
        path
        for path, digest in manifest.sources.items()
        if digest and Path(path).is_file() and file_sha256(Path(path)) != digest
    ]
    if files:
        raise NmtError(f"{data.dir}: {', '.join(files)} changed after nmt prepare", hint)


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys below `key` whose values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(f"{key}.{name}", old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{key}.{index}", first, second)
    elif old != new:
        yield key, old, new
