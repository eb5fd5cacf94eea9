"""What is evaluated: systems, each a run or a file of hypotheses, on one set of texts."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.data.parallel import check_same_length, read_texts
from nmt.errors import NmtError
from nmt.evaluate.texts import (
    check_is_chinese,
    check_is_english,
    check_is_raw,
    texts_sha256,
    translate_all,
)
from nmt.run.directory import Run
from nmt.translate.translator import Translator
from nmt.translate.types import Translation


@dataclass(frozen=True)
class Texts:
    """The set that systems are scored on.

    Attributes:
        source: raw Chinese lines; None if only hypotheses and references were given.
        references: complete sets of them, at least one.
        names: of the files, source first if there is one.
    """

    source: list[str] | None
    references: list[list[str]]
    names: list[str]

    @property
    def segments(self) -> int:
        """How many lines each text has."""
        return len(self.references[0])

    def sha256(self) -> dict[str, str]:
        """Hashes by role: ``source``, ``reference``, ``reference2``, …."""
        hashes = {} if self.source is None else {"source": texts_sha256(self.source)}
        for place, lines in enumerate(self.references, start=1):
            hashes["reference" if place == 1 else f"reference{place}"] = texts_sha256(lines)
        return hashes


@dataclass(frozen=True)
class System:
    """One system's translations of the set.

    Attributes:
        name: its path as the user gave it.
        hypotheses: a line for each segment.
        run: the run directory, None for a file of hypotheses.
        details: what repeats it: model, update, search.
        translations: with their attention; empty for a file.
        translator: of a run.
    """

    name: str
    hypotheses: list[str]
    run: Run | None = None
    details: dict[str, Any] = field(default_factory=dict)
    translations: list[Translation] = field(default_factory=list)
    translator: Translator | None = None


@dataclass(frozen=True)
class Decoding:
    """How runs translate: where, and what is changed of their own search."""

    device: str
    beam: int | None
    alpha: float | None
    batch_size: int


def read(
    paths: Sequence[Path], src: Path | None, refs: Sequence[Path]
) -> tuple[Texts, list[Run | System]]:
    """Read and check all texts.

    Args:
        paths: run directories and files of hypotheses, mixed as one likes.
        src: Chinese lines, instead of the runs' own test set.
        refs: references, one file a set; needed without a run, or with `src`.

    Returns:
        The set, and for each path the run, which has translated nothing yet, or the system.

    Raises:
        NmtError: anything missing, unequal, in pieces, or on the wrong side.
    """
    runs = {path: Run.open(path) for path in paths if _is_run(path)}
    texts = _texts(list(runs.values()), src, refs)
    given = {path: read_texts(path) for path in paths if path not in runs}
    for path, lines in given.items():
        check_same_length([(str(path), lines), (texts.names[-1], texts.references[-1])])
        check_is_raw(str(path), lines)
        check_is_english(str(path), lines)
    return texts, [
        runs[path] if path in runs else System(str(path), given[path], details={"file": str(path)})
        for path in paths
    ]


def translated(systems: Sequence[Run | System], texts: Texts, decoding: Decoding) -> list[System]:
    """What `read` gave, each run by now a system that has translated the set."""
    return [one if isinstance(one, System) else _translate(one, texts, decoding) for one in systems]


def _is_run(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        # A path that is not there reads as a run if it has no ending: the message fits then.
        return str(path) != "-" and not path.suffix


def _texts(runs: Sequence[Run], src: Path | None, refs: Sequence[Path]) -> Texts:
    if runs and src is None and not refs:
        return _test_set(runs)
    if runs and (src is None or not refs):
        raise NmtError("--src and --ref go together: source lines and their references")
    if not refs:
        raise NmtError("hypotheses need --ref, the references to score against")
    source = None if src is None else read_texts(src)
    references = [read_texts(path) for path in refs]
    names = [str(path) for path in ([src] if src is not None else []) + list(refs)]
    texts = Texts(source, references, names)
    _check(texts)
    for name, lines in zip(names[-len(references) :], references, strict=True):
        if not any(map(str.strip, lines)):
            raise NmtError(f"{name}: every line is blank, nothing to score against")
    return texts


def _test_set(runs: Sequence[Run]) -> Texts:
    """The test set that all runs share."""
    first, *others = runs
    texts = Texts(
        first.text("test", "src"), [first.text("test", "trg")], ["test.src.txt", "test.trg.txt"]
    )
    # Written by nmt prepare: its sides are right, and a line that only looks like pieces
    # is one of the user's own. Not so if the whole corpus was cut up beforehand.
    named = _named(texts)
    check_same_length(named)
    for name, lines in named:
        check_is_raw(name, lines)
    for other in others:
        if (other.text("test", "src"), [other.text("test", "trg")]) != (
            texts.source,
            texts.references,
        ):
            raise NmtError(
                f"{first.folder} and {other.folder} have different test sets: their scores "
                "can't be compared",
                "name one set for both: --src FILE --ref FILE",
            )
    return texts


def _named(texts: Texts) -> list[tuple[str, list[str]]]:
    sources = [] if texts.source is None else [texts.source]
    return list(zip(texts.names, [*sources, *texts.references], strict=True))


def _check(texts: Texts) -> None:
    named = _named(texts)
    check_same_length(named)
    for name, lines in named:
        check_is_raw(name, lines)
    if texts.source is not None:
        check_is_chinese(*named.pop(0))
    for name, lines in named:
        check_is_english(name, lines)


def _translate(run: Run, texts: Texts, decoding: Decoding) -> System:
    path = run.folder
    assert texts.source is not None  # `_texts` saw to it
    translator = Translator.load(path, decoding.device)
    translator.change_search({"beam": decoding.beam, "length_penalty": decoding.alpha})
    translations = translate_all(translator, texts.source, str(path), decoding.batch_size)
    details = {
        "model": str(path),
        "update": translator.updates[0],
        "identity": run.identity,
        "texts": texts.names,
        "search": translator.search.model_dump(),
    }
    hypotheses = [translation.text for translation in translations]
    return System(str(path), hypotheses, run, details, translations, translator)
