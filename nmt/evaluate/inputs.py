"""Inputs of an evaluation: test set and systems, with the checks that make a score meaningful."""

from __future__ import annotations

import hashlib
import logging
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nmt.data.parallel import check_has_chinese, check_same_length, read_references, read_texts
from nmt.data.training_keys import count_trained_on
from nmt.errors import NmtError
from nmt.run.directory import Run
from nmt.run.models import Model, is_model, open_model
from nmt.symbols import SPACE_MARK
from nmt.text.normalise import HAN
from nmt.translate.types import Translation

logger = logging.getLogger(__name__)

_HAN_PAIR = re.compile(f"{HAN}(?= ?{HAN})")
_HAN_GAP = re.compile(f"{HAN}(?= {HAN})")
_MAX_GAPS = 0.25  # of adjacent Han characters; Chinese words have less than two on average
_MIN_PAIRS = 8  # adjacent Han characters needed to decide whether text is segmented
_MAX_PIECES = 0.1  # fraction of lines that may contain subword marks
_PIECES = re.compile(rf"{SPACE_MARK}|@@(?: |$)")


@dataclass(frozen=True)
class Texts:
    """The test set.

    Attributes:
        source: raw Chinese lines; None if only hypotheses and references were named.
        references: complete sets of reference lines, at least one.
        names: file names, source first if there is one.
    """

    source: list[str] | None
    references: list[list[str]]
    names: list[str]

    @property
    def segments(self) -> int:
        """Number of lines of each text."""
        return len(self.references[0])

    @property
    def named(self) -> list[tuple[str, list[str]]]:
        """Name and lines of each text, source first if there is one."""
        sources = [] if self.source is None else [self.source]
        return list(zip(self.names, [*sources, *self.references], strict=True))

    def sha256(self) -> dict[str, str]:
        """Return hashes by role: ``source``, ``reference``, ``reference2``, …."""
        hashes = {} if self.source is None else {"source": hash_lines(self.source)}
        for number, lines in enumerate(self.references, start=1):
            hashes["reference" if number == 1 else f"reference{number}"] = hash_lines(lines)
        return hashes


@dataclass(frozen=True)
class System:
    """Translations of the test set by one system.

    Attributes:
        name: path on the command line.
        hypotheses: one line per segment.
        run: run directory; None for a package or a file of hypotheses.
        details: what is needed to reproduce the hypotheses: model, update, search settings.
        translations: of a model, with attention; empty for a file.
    """

    name: str
    hypotheses: list[str]
    run: Run | None = None
    details: dict[str, Any] = field(default_factory=dict)
    translations: list[Translation] = field(default_factory=list)


def read_inputs(
    paths: Sequence[Path], src: Path | None, refs: Sequence[Path]
) -> tuple[Texts, list[Model | System]]:
    """Read and check the test set and the systems.

    Args:
        paths: run directories, packages and files of hypotheses.
        src: Chinese lines that replace the test set of the runs.
        refs: references, one file per set; required without a run, or with `src`.

    Returns:
        The test set, and for each path an open model or a system with its hypotheses.

    Raises:
        NmtError: a text is missing, segmented or Chinese instead of English (or the reverse);
            line counts differ; runs have different test sets.
    """
    runs = {path: open_model(path) for path in paths if _is_model(path)}
    if runs and src is None and not refs:
        texts = _read_test_set(list(runs.values()))
    elif runs and (src is None or not refs):
        raise NmtError("--src and --ref go together: source lines and their references")
    elif not refs:
        raise NmtError("hypotheses need --ref, the references to score against")
    else:
        texts = _read_files(src, refs)
    systems: list[Model | System] = []
    for path in paths:
        if path in runs:
            systems.append(runs[path])
            continue
        name, lines = str(path), read_texts(path, "hyp")
        check_same_length([(name, lines), texts.named[-1]])
        check_is_raw(name, lines)
        check_is_english(name, lines)
        systems.append(System(name, lines, details={"file": name}))
    return texts, systems


def _is_model(path: Path) -> bool:
    if is_model(path):
        return True
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        # A missing path without suffix counts as a run, for the error message.
        return str(path) != "-" and not path.suffix


def _read_files(src: Path | None, refs: Sequence[Path]) -> Texts:
    source = None if src is None else read_texts(src)
    names = [] if src is None else [str(src)]
    references = []
    for path in refs:
        sets = read_references(path)
        names += [str(path) if n == 1 else f"{path} ({n})" for n in range(1, len(sets) + 1)]
        references += sets
    texts = Texts(source, references, names)
    check_same_length(texts.named)
    for name, lines in texts.named:
        check_is_raw(name, lines)
    if source is not None:
        check_is_chinese(names[0], source)
    for name, lines in texts.named[-len(references) :]:
        check_is_english(name, lines)
        if not any(map(str.strip, lines)):
            raise NmtError(f"{name}: every line is blank, nothing to score against")
    return texts


def _read_test_set(runs: Sequence[Model]) -> Texts:
    """Return the test set that all runs share.

    The languages of a prepared set were checked by ``nmt prepare``. The whole corpus may still
    have been segmented before it.
    """
    first, *others = runs
    source, reference = first.text("test", "src"), first.text("test", "trg")
    texts = Texts(source, [reference], ["test.src.txt", "test.trg.txt"])
    check_same_length(texts.named)
    for name, lines in texts.named:
        check_is_raw(name, lines)
    for run in others:
        if (run.text("test", "src"), run.text("test", "trg")) != (source, reference):
            raise NmtError(
                f"{first.path} and {run.path} have different test sets: their scores "
                "can't be compared",
                "name one set for both: --src FILE --ref FILE",
            )
    return texts


def warn_of_training_sentences(systems: Sequence[Model | System], texts: Texts) -> None:
    """Warn if a run was trained on sentences of the test set."""
    for run in systems:
        if not isinstance(run, Run) or texts.source is None:
            continue
        simplify = run.config.data.to_simplified
        count = count_trained_on(run.folder, texts.source, simplify=simplify)
        if count:
            logger.warning(
                f"{run.folder}: trained on {count:,} of {texts.segments:,} source sentences "
                f"({count / texts.segments:.1%}): its scores are too high. Score it on its own "
                "test set, or list the sentences under data.exclude, prepare and train again"
            )


def check_is_raw(name: str, lines: Sequence[str]) -> None:
    """Raise for text that is segmented into subword pieces: its score would be meaningless.

    Up to a tenth of the lines may contain ``@@`` or ``▁``, as a manual might.

    Raises:
        NmtError: more lines contain them; names the first.
    """
    numbers = [number for number, line in enumerate(lines, start=1) if _PIECES.search(line)]
    if len(numbers) > _MAX_PIECES * len(lines):
        raise NmtError(
            f"{name}:{numbers[0]}: segmented into pieces ({lines[numbers[0] - 1][:40]!r}), "
            f"as {len(numbers):,} of {len(lines):,} lines",
            "join the pieces to plain text first; scores are computed on raw text only",
        )


def check_is_chinese(name: str, lines: Sequence[str]) -> None:
    """Raise for a source side that is not raw Chinese.

    Raises:
        NmtError: less than half of the lines contain a Han character, or words are separated
            by spaces.
    """
    check_has_chinese(name, lines, "--src and --ref")
    pairs = sum(len(_HAN_PAIR.findall(line)) for line in lines)
    gaps = sum(len(_HAN_GAP.findall(line)) for line in lines)
    if pairs >= _MIN_PAIRS and gaps > _MAX_GAPS * pairs:
        first = next(number for number, line in enumerate(lines, 1) if _HAN_GAP.search(line))
        raise NmtError(
            f"{name}:{first}: Chinese words are separated by spaces ({lines[first - 1][:40]!r}), "
            f"between {gaps} of {pairs} adjacent characters",
            "use the raw text: the model has its own tokenizer",
        )


def check_is_english(name: str, lines: Sequence[str]) -> None:
    """Raise for hypotheses or references that are Chinese.

    Raises:
        NmtError: most letters are Han characters.
    """
    text = "".join(lines)
    letters = sum(map(str.isalpha, text))
    han = len(re.findall(HAN, text))
    if han * 2 > letters:
        raise NmtError(
            f"{name}: is Chinese ({han} of {letters} letters), English is scored here",
            "are the sides swapped? hypotheses and references are English",
        )


def hash_lines(lines: Sequence[str]) -> str:
    r"""Return the hex SHA-256 of lines, each with ``\n``: the hash of a file of these lines."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
