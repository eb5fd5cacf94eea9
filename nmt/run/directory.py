"""The run directory: all files of a trained model, checked before they are parsed.

    runs/quickstart/
      run.json             format, hashes of the other files, whether training has finished
      config.yaml          the whole configuration
      src.model trg.model  the tokenizers
      dev.*.txt test.*.txt raw text for validation and evaluation
      manifest.json        description of the corpus
      train.jsonl          the journal
      aligner.safetensors  the statistical aligner, with train.guided_alignment
      start.safetensors    initial weights, with train.start_from
      alignment/           word alignments of the training pairs by that aligner
      checkpoints/
        00000500/          model.safetensors, trainer.safetensors, state.json

Weights are in safetensors, everything else is JSON, YAML or text: nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

import torch
import yaml

from nmt.config.load import build_config, dump_config
from nmt.config.schema import Config
from nmt.data.lengths import LengthStatistics
from nmt.data.packed import SIDES
from nmt.data.tokenizer import Tokenizer, load_both
from nmt.data.training_keys import TRAINING_KEYS
from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.io.temporary import remove_leftovers
from nmt.io.write import check_inside, file_sha256, replacing_folder, write_whole
from nmt.model import Seq2Seq
from nmt.run.checkpoints import CheckpointStore, best_dev_bleu
from nmt.run.records import FORMAT, FileRecord, Record, dump_record, load_record, read_checked
from nmt.version import __version__

logger = logging.getLogger(__name__)

ALIGNER = "aligner.safetensors"  # the statistical aligner, written by nmt.align
_LOCK = ".lock"
_TEXTS = ("dev.src.txt", "dev.trg.txt", "test.src.txt", "test.trg.txt")
_COPIED = ("src.model", "trg.model", "manifest.json", TRAINING_KEYS, *_TEXTS)
_STATISTICS_LINES = 1000  # dev pairs whose lengths are counted


class RunInfo(Record):
    """Content of ``run.json``.

    Attributes:
        format: format of the run directory.
        program: version of nmt.
        created: time, ISO 8601.
        finished: time, ISO 8601; None while training has not finished.
        corpus: hash of the manifest of the corpus.
        config: records of ``config.yaml``: the current one and, while it is being replaced, the
            next one.
        files: records of the files copied from the corpus.
        length_statistics: lengths of the dev set; None if it has no usable pair.
    """

    format: int
    program: str
    created: str
    finished: str | None
    corpus: str
    config: list[FileRecord]
    files: dict[str, FileRecord]
    length_statistics: LengthStatistics | None

    @property
    def tokenizers(self) -> dict[str, str]:
        """Hash of each side's tokenizer."""
        return {side: self.files[f"{side}.model"].sha256 for side in SIDES}


class Run:
    """An opened run directory.

    Attributes:
        folder: the directory.
        config: the configuration it was trained with.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        info: content of ``run.json``.
        checkpoints: its checkpoints.
    """

    def __init__(self, folder: Path, config: Config, info: RunInfo) -> None:
        self.folder = folder
        self.config = config
        self.info = info
        for side in SIDES:
            path = folder / f"{side}.model"
            try:
                read_checked(path, info.files[path.name])
            except NmtError as error:
                raise NmtError(
                    f"{error.message}; not the tokenizer this run was trained with",
                    "put the original file back: weights and tokenizers belong together",
                ) from error
        self.src, self.trg = load_both(folder, simplify=config.data.to_simplified)
        self.checkpoints = CheckpointStore(
            folder / "checkpoints", self.identity, config.train.keep_best
        )

    @classmethod
    def create(cls, config: Config, further: Mapping[str, bytes] = MappingProxyType({})) -> Run:
        """Create a run directory from the prepared corpus of `config`.

        Args:
            config: the whole configuration.
            further: other files to record, by name.

        Raises:
            NmtError: the folder cannot be written, or exists and is not a run directory.
        """
        folder, corpus = config.run, config.data.dir
        if folder.exists() and not folder.is_dir():
            raise NmtError(f"{folder}: is a file, run names a folder", "name another one in run")
        if folder.exists() and any(folder.iterdir()):
            raise NmtError(
                f"{folder}: exists and is not a run directory",
                "name another folder in run, or move this one away",
            )
        with replacing_folder(folder, new=True) as scratch:
            for name in _COPIED:
                shutil.copyfile(corpus / name, scratch / name)
            for name, content in further.items():
                (scratch / name).write_bytes(content)
            (scratch / "checkpoints").mkdir()
            dumped = dump_config(config).encode()
            (scratch / "config.yaml").write_bytes(dumped)
            src, trg = load_both(scratch, simplify=config.data.to_simplified)
            info = RunInfo(
                format=FORMAT,
                program=__version__,
                created=_now(),
                finished=None,
                corpus=file_sha256(corpus / "manifest.json"),
                config=[FileRecord.of_bytes(dumped)],
                files={name: FileRecord.of(scratch / name) for name in (*_COPIED, *further)},
                length_statistics=_length_statistics(scratch, src, trg),
            )
            (scratch / "run.json").write_bytes(dump_record(info))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run directory.

        Raises:
            NmtError: the directory is missing, incomplete, damaged, or of a newer format.
        """
        if not folder.is_dir():
            raise NmtError(f"{folder}: no such run directory", "nmt train makes one; see runs/")
        if not (folder / "run.json").exists():
            raise NmtError(f"{folder}: not a run directory, or incomplete: run.json is missing")
        info = load_record(folder / "run.json", RunInfo)
        path = folder / "config.yaml"
        tree = yaml.safe_load(read_checked(path, *info.config))
        return cls(folder, build_config(tree, str(path)), info)

    @property
    def path(self) -> Path:
        """The directory, by the name that packages have too."""
        return self.folder

    @property
    def identity(self) -> str:
        """Hash of the tokenizers and the shape of the network, which weights must match."""
        network = self.config.model.model_dump(mode="json")
        text = json.dumps([self.info.tokenizers, network], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self, name: str, side: str) -> list[str]:
        """Return the raw lines of dev or test; `side` is src or trg.

        Raises:
            NmtError: the file is missing or damaged.
        """
        path = self.folder / f"{name}.{side}.txt"
        if path.exists():
            read_checked(path, self.info.files[path.name])
        return list(read_lines(path))

    def build_model(self, *, initialise: bool = True) -> Seq2Seq:
        """Build the network with random weights from torch's generator.

        initialise=False leaves the weights uninitialised (`load_state_dict` follows).
        """
        return Seq2Seq(len(self.src), len(self.trg), self.config.model, initialise=initialise)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the best weights, on the CPU.

        Raises:
            NmtError: there is no checkpoint, or it is damaged.
        """
        return self.checkpoints.load_best(torch.device("cpu"))[1]

    def load_model(self, device: torch.device) -> tuple[int, Seq2Seq]:
        """Return the update of the best weights, and the network with them in evaluation mode.

        Raises:
            NmtError: there is no checkpoint, or it is damaged.
        """
        best, weights = self.checkpoints.load_best(device)
        model = self.build_model(initialise=False)
        model.load_state_dict(weights)
        return best.update, model.to(device).eval()

    def tidy(self, update: int) -> None:
        """Remove leftovers of killed processes; training resumes from `update`.

        The run must be locked.
        """
        self.checkpoints.tidy(update)
        remove_leftovers(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Context manager that locks the run for training. A killed process frees the lock.

        Raises:
            NmtError: the run is locked by another process.
        """
        import fcntl  # not on Windows, where runs are read but not trained

        with (self.folder / _LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NmtError(
                    f"{self.folder}: locked by another nmt train",
                    "wait until it ends, or name another folder in run",
                ) from None
            except OSError as error:  # a file system without locks
                logger.warning(
                    f"{self.folder}: cannot be locked ({error.strerror}); train it only once"
                )
            yield

    def replace_config(self, config: Config) -> None:
        """Record keys that were changed for the rest of the training."""
        dumped = dump_config(config).encode()
        # Both records are valid until the next call: a kill may come between the two writes.
        current = FileRecord.of(self.folder / "config.yaml")
        self._replace_info(config=[current, FileRecord.of_bytes(dumped)])
        self._write("config.yaml", dumped)
        self.config = config

    def mark_finished(self, finished: bool = True) -> None:
        """Record that training has finished, or that it continues."""
        self._replace_info(finished=_now() if finished else None)

    def _replace_info(self, **changes: object) -> None:
        self.info = self.info.model_copy(update=changes)
        self._write("run.json", dump_record(self.info))

    def _write(self, name: str, data: bytes) -> None:
        check_inside(self.folder / name, self.folder)
        write_whole(self.folder / name, data)


@dataclass(frozen=True)
class _FinishedRun:
    folder: Path
    finished: datetime
    dev_bleu: float | None  # best of its checkpoints; None without a validation


def newest_run(parent: Path) -> Path:
    """Return the run under `parent` that finished last, and log its dev BLEU and age.

    Runs without a validated checkpoint are used only if there are no others. A run with a
    higher dev BLEU is named in a note.

    Raises:
        NmtError: `parent` contains no finished run.
    """
    runs = list(_finished_runs(parent))
    if not runs:
        raise NmtError(
            f"{parent}/: no finished run in it",
            "train one with nmt train, or name one with --model",
        )
    validated = [run for run in runs if run.dev_bleu is not None]
    newest = max(validated or runs, key=lambda run: run.finished)
    score = "not validated" if newest.dev_bleu is None else f"dev BLEU {newest.dev_bleu:.1f}"
    logger.info(f"model: {newest.folder} ({score}, finished {_age(newest.finished)})")
    if newest.dev_bleu is not None:
        best = max(validated, key=lambda run: run.dev_bleu or 0.0)
        if (best.dev_bleu or 0.0) > newest.dev_bleu:
            logger.info(
                f"note: {best.folder} has a higher dev BLEU ({best.dev_bleu:.1f}); "
                "name it to use it"
            )
    return newest.folder


def _finished_runs(parent: Path) -> Iterator[_FinishedRun]:
    for path in parent.glob("*/run.json"):
        with contextlib.suppress(NmtError):
            finished = load_record(path, RunInfo).finished
            if finished is not None:
                score = best_dev_bleu(path.parent / "checkpoints")
                yield _FinishedRun(path.parent, datetime.fromisoformat(finished), score)


def _age(time: datetime) -> str:
    """Return the time since `time` in its largest unit: ``3 hours ago``."""
    seconds = (datetime.now(timezone.utc) - time).total_seconds()
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count:,} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def _length_statistics(folder: Path, src: Tokenizer, trg: Tokenizer) -> LengthStatistics | None:
    """Return the length statistics of about 1,000 dev pairs, evenly spaced."""
    texts = [list(read_lines(folder / f"dev.{side}.txt")) for side in SIDES]
    step = max(1, len(texts[0]) // _STATISTICS_LINES)
    encoded = (tok.encode_all(lines[::step]) for tok, lines in zip((src, trg), texts, strict=True))
    pairs = [(len(s), len(t)) for s, t in zip(*encoded, strict=True) if s and t]
    return LengthStatistics.of(*zip(*pairs, strict=True)) if pairs else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
