"""Checkpoints of a run: weights, the state of training, and scores.

A checkpoint appears whole or not at all, and its tensors are never overwritten. It contains the
identity of the run and the hashes of its files, so that files of two runs cannot be mixed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from nmt.errors import NmtError
from nmt.io.temporary import remove_leftovers
from nmt.io.write import remove_folder, replacing_folder, write_whole
from nmt.run.records import FileRecord, Record, dump_record, load_record, read_checked

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


class CheckpointState(Record):
    """Content of ``state.json``.

    Attributes:
        update: number of optimizer steps before the checkpoint.
        dev_bleu: dev BLEU of the weights, 0 to 100; None without a validation.
        identity: `Run.identity`.
        training: the state of training other than tensors, defined by `nmt.train`.
        files: the tensor files.
    """

    update: int
    dev_bleu: float | None
    identity: str
    training: dict[str, Any]
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class Checkpoint:
    """A saved checkpoint.

    Attributes:
        folder: its folder.
        state: content of ``state.json``.
    """

    folder: Path
    state: CheckpointState

    @property
    def update(self) -> int:
        """Number of optimizer steps before the checkpoint."""
        return self.state.update

    @property
    def dev_bleu(self) -> float | None:
        """Dev BLEU of the weights, 0 to 100; None without a validation."""
        return self.state.dev_bleu

    def load(self, name: str, device: torch.device) -> Tensors:
        """Load the tensors of one file, ``model`` or ``trainer``, after checking its hash.

        Raises:
            NmtError: the file is missing or damaged.
        """
        path = self.folder / f"{name}.safetensors"
        record = self.state.files.get(path.name)
        if record is None:
            raise NmtError(f"{path}: not a file of this checkpoint")
        try:
            tensors = load(read_checked(path, record))
        except NmtError as error:
            raise NmtError(
                error.message,
                f"put the original file back, or remove {self.folder} to use the next best one",
            ) from error
        except safetensors.SafetensorError as error:
            raise NmtError(f"{path}: damaged ({error})") from error
        return {key: tensor.to(device) for key, tensor in tensors.items()}


class CheckpointStore:
    """The folder of checkpoints of a run.

    Args:
        folder: the folder.
        identity: hash of tokenizers and network; checkpoints of another one are refused.
        keep_best: number of best checkpoints that are kept.
    """

    def __init__(self, folder: Path, identity: str, keep_best: int) -> None:
        self.folder = folder
        self.identity = identity
        self.keep_best = keep_best

    def all(self) -> list[Checkpoint]:
        """Return all readable checkpoints, oldest first; log a warning for damaged ones."""
        checkpoints = [self._read(folder) for folder in self._folders()]
        return sorted((c for c in checkpoints if c is not None), key=lambda c: c.update)

    def best(self) -> Checkpoint:
        """Return the checkpoint with the best dev BLEU; without validations, the newest.

        Update 0, the initial weights, does not count.

        Raises:
            NmtError: there is none.
        """
        saved = [checkpoint for checkpoint in self.all() if checkpoint.update]
        if not saved:
            raise NmtError(
                f"{self.folder.parent}: no checkpoint yet",
                "let nmt train run until its first save",
            )
        return max(saved, key=lambda c: (-1.0 if c.dev_bleu is None else c.dev_bleu, c.update))

    def load_best(self, device: torch.device) -> tuple[Checkpoint, Tensors]:
        """Return the best checkpoint and its weights.

        A training in progress may remove it before it is read; then the new best one is read.

        Raises:
            NmtError: there is no checkpoint, or the best one is damaged.
        """
        while True:
            best = self.best()
            try:
                return best, best.load("model", device)
            except NmtError:
                if best.folder.exists():
                    raise

    def last_good(self) -> tuple[Checkpoint, dict[str, Tensors]] | None:
        """Return the newest undamaged checkpoint and its tensors on the CPU; None without any.

        Raises:
            NmtError: all checkpoints are damaged.
        """
        cpu = torch.device("cpu")  # a GPU may not have the memory for a second copy
        for checkpoint in reversed(self.all()):
            try:
                tensors = {name: checkpoint.load(name, cpu) for name in ("model", "trainer")}
            except NmtError as error:
                logger.warning(f"{error.message}; using the previous checkpoint")
                continue
            return checkpoint, tensors
        if self._folders():
            raise NmtError(
                f"{self.folder}: all checkpoints are damaged",
                "put good copies back, or remove the folder to train from the start",
            )
        return None

    def save(
        self, training: dict[str, Any], model: Tensors, trainer: Tensors, dev_bleu: float | None
    ) -> None:
        """Write a checkpoint, then remove those that are no longer needed.

        Saving again at the same update rewrites only ``state.json``; a known dev BLEU stays.

        Args:
            training: the state of training other than tensors, including ``update``.
            model: the weights to translate with.
            trainer: the other tensors needed to resume.
            dev_bleu: dev BLEU of `model`, if validated.

        Raises:
            NmtError: the disk is full; earlier checkpoints stay.
        """
        update = int(training["update"])
        folder = self.folder / f"{update:08d}"
        existing = self._read(folder) if folder.is_dir() else None
        if existing is not None:
            score = existing.dev_bleu if dev_bleu is None else dev_bleu
            changes = {"training": training, "dev_bleu": score}
            state = existing.state.model_copy(update=changes)
            write_whole(folder / "state.json", dump_record(state))
        else:
            if folder.is_dir():
                remove_folder(folder)  # damaged
            with replacing_folder(folder) as scratch, _safetensors_errors():
                for name, tensors in (("model", model), ("trainer", trainer)):
                    save_file(_on_cpu(tensors), scratch / f"{name}.safetensors")
                files = {path.name: FileRecord.of(path) for path in sorted(scratch.iterdir())}
                state = CheckpointState(
                    update=update, dev_bleu=dev_bleu, identity=self.identity,
                    training=training, files=files,
                )  # fmt: skip
                (scratch / "state.json").write_bytes(dump_record(state))
        self._prune()

    def tidy(self, update: int) -> None:
        """Remove checkpoints after `update` and leftovers of killed processes.

        Training resumes from `update`, so that later checkpoints are damaged. The run must be
        locked.
        """
        for folder in self._folders():
            if int(folder.name) > update:
                shutil.rmtree(folder)
            else:
                remove_leftovers(folder)
        remove_leftovers(self.folder)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.name.isdecimal())

    def _read(self, folder: Path) -> Checkpoint | None:
        try:
            state = load_record(folder / "state.json", CheckpointState)
        except NmtError as error:
            if folder.is_dir():  # else removed by a training in progress
                logger.warning(f"{error.message}; checkpoint ignored")
            return None
        if state.identity != self.identity:
            raise NmtError(
                f"{folder}: belongs to another run (other tokenizers or network)",
                "move it back to its run: weights, tokenizers and network belong together",
            )
        return Checkpoint(folder, state)

    def _prune(self) -> None:
        saved = self.all()
        scored = [checkpoint for checkpoint in saved if checkpoint.dev_bleu is not None]
        scored.sort(key=lambda c: (c.dev_bleu, c.update), reverse=True)
        # The two newest are kept, in case the last one is damaged.
        keep = {checkpoint.update for checkpoint in [*saved[-2:], *scored[: self.keep_best]]}
        for checkpoint in saved:
            if checkpoint.update not in keep:
                remove_folder(checkpoint.folder)


def best_dev_bleu(folder: Path) -> float | None:
    """Return the best dev BLEU of the checkpoints in a folder, without loading the run.

    Damaged checkpoints are skipped. None if no checkpoint was validated.
    """
    scores = []
    for path in folder.glob("*/state.json"):
        with contextlib.suppress(NmtError):
            state = load_record(path, CheckpointState)
            if state.update and state.dev_bleu is not None:
                scores.append(state.dev_bleu)
    return max(scores, default=None)


@contextlib.contextmanager
def _safetensors_errors() -> Iterator[None]:
    """Context manager that restores the `OSError` that safetensors describes in a message."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


def _on_cpu(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
