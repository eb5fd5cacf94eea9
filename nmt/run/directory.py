"""The run directory: all that a trained model needs, checked when it is opened.

    runs/quickstart/
      run.json             format, identity of tokenizers and network, whether finished
      config.yaml          the whole configuration
      src.model trg.model  the tokenizers
      dev.*.txt test.*.txt raw text for validation and evaluation
      manifest.json        what the corpus was
      train.jsonl          the journal
      aligner.safetensors  the statistical aligner, with train.guided_alignment
      alignment/           word alignments of the training pairs by that aligner
      checkpoints/
        00000500/          model.safetensors, trainer.safetensors, state.json

Weights are in safetensors, everything else is JSON, YAML or text: nothing is unpickled.
A checkpoint appears whole or not at all, and its tensors are never written over. It
carries the run's identity and the hashes of its files, so files of two runs, or a damaged
one, can't be mixed up unnoticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import safetensors
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from nmt.config.load import build_config, dump_config
from nmt.config.schema import Config
from nmt.data.packed import SIDES
from nmt.data.tokenizer import load_both
from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.io.write import file_sha256, replacing_folder, write_whole
from nmt.model import Seq2Seq
from nmt.version import __version__

logger = logging.getLogger(__name__)

FORMAT = 1
_TEXTS = ("dev.src.txt", "dev.trg.txt", "test.src.txt", "test.trg.txt")
_LOCK = ".lock"
# What `nmt.io.write.replacing` and its like call a file or folder until it is whole.
_HALF_WRITTEN = re.compile(
    r"\.(\d{8}|run\.json|state\.json|config\.yaml|train\.jsonl|curves\.svg|aligner\.safetensors|alignment)\."
)
_COPIED = ("src.model", "trg.model", "manifest.json", *_TEXTS)
# Keys that came later, and what networks had before: a run from then is what it was.
_ADDED = {"attention_query": "state", "source_bridge": False, "layer_norm": False}


@dataclass(frozen=True)
class Checkpoint:
    """One saved moment of a training.

    Attributes:
        folder: where its files are.
        state: what `state.json` says: update, position, scores, hashes.
    """

    folder: Path
    state: dict[str, Any]

    @property
    def update(self) -> int:
        """Optimizer steps done when it was saved."""
        return int(self.state["update"])

    @property
    def dev_bleu(self) -> float | None:
        """Dev BLEU of these weights, 0 to 100, if they were validated."""
        score = self.state.get("dev_bleu")
        return None if score is None else float(score)

    def load(self, name: str, device: torch.device) -> dict[str, Tensor]:
        """Tensors of one of its files, after checking its hash.

        Raises:
            NmtError: missing or damaged.
        """
        path = self.folder / f"{name}.safetensors"
        try:
            if file_sha256(path) != self.state["files"][path.name]:
                raise NmtError(
                    f"{path}: damaged: its checksum differs from the one recorded",
                    f"put a good copy back, or remove {self.folder} to use the next best one",
                )
            return load_file(path, device=str(device))
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise NmtError(f"{path}: missing or damaged ({error})") from error


class Run:
    """An opened run directory.

    Attributes:
        folder: the directory.
        config: the configuration it was trained with.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        info: what ``run.json`` says.
    """

    def __init__(self, folder: Path, config: Config, info: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.info = info
        self.src, self.trg = load_both(folder, simplify=config.data.to_simplified)
        for side, tokenizer in zip(SIDES, (self.src, self.trg), strict=True):
            if tokenizer.sha256 != info["tokenizers"][side]:
                raise NmtError(
                    f"{folder / side}.model: is not the tokenizer this run was trained with",
                    "put the original file back: weights and pieces belong together",
                )

    @classmethod
    def create(cls, config: Config) -> Run:
        """Start a run directory from the prepared corpus that `config` names.

        Raises:
            NmtError: it can't be written, or holds something else.
        """
        folder, corpus = config.run, config.data.dir
        if folder.exists() and not folder.is_dir():
            raise NmtError(f"{folder}: is a file, run names a folder", "name another one in run")
        if folder.exists() and any(folder.iterdir()):
            raise NmtError(
                f"{folder}: is there, and not a run of nmt train",
                "name another folder in run, or move this one away",
            )
        with replacing_folder(folder, new=True) as scratch:
            for name in _COPIED:
                shutil.copyfile(corpus / name, scratch / name)
            (scratch / "checkpoints").mkdir()
            (scratch / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            info = {
                "format": FORMAT,
                "program": __version__,
                "created": _now(),
                "finished": None,
                "tokenizers": {side: file_sha256(scratch / f"{side}.model") for side in SIDES},
                "corpus": file_sha256(corpus / "manifest.json"),
            }
            (scratch / "run.json").write_text(_json(info), encoding="utf-8")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run directory.

        Raises:
            NmtError: missing, incomplete, damaged, or of another format.
        """
        info = _read_info(folder)
        try:
            tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise NmtError(f"{folder / 'config.yaml'}: missing or damaged ({error})") from error
        return cls(folder, build_config(tree, str(folder / "config.yaml")), info)

    @property
    def identity(self) -> str:
        """Hash of what weights must fit: tokenizers and the shape of the network."""
        network = self.config.model.model_dump(mode="json")
        for key, before in _ADDED.items():
            if network[key] == before:
                del network[key]
        text = json.dumps([self.info["tokenizers"], network], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self, name: str, side: str) -> list[str]:
        """Raw lines of dev or test: `side` is src or trg."""
        return list(read_lines(self.folder / f"{name}.{side}.txt"))

    def build_model(self, *, initialise: bool = True) -> Seq2Seq:
        """The network with fresh weights, drawn from torch's random state.

        Without `initialise` they hold no start to train from: for weights that are loaded.
        """
        model = self.config.model.model_dump()
        return Seq2Seq(
            src_vocab=len(self.src), trg_vocab=len(self.trg), initialise=initialise, **model
        )

    def checkpoints(self) -> list[Checkpoint]:
        """All that are readable, oldest first; a damaged one is warned of and left out."""
        # Names that are no number are being written, were left behind by a kill, or an average.
        names = sorted(p.name for p in self.folder.glob("checkpoints/*") if p.name.isdigit())
        found = [self._read(name) for name in names]
        return sorted((c for c in found if c is not None), key=lambda c: c.update)

    def _read(self, name: str) -> Checkpoint | None:
        folder = self.folder / "checkpoints" / name
        path = folder / "state.json"
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            checkpoint = Checkpoint(folder, state)
            if state["identity"] != self.identity:
                raise NmtError(
                    f"{folder}: belongs to another run (other tokenizers or network)",
                    "put it back where it came from; weights, pieces and network belong together",
                )
            if checkpoint.update < 0 or not state["files"]:
                raise ValueError("it says nothing of its files")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if folder.is_dir():  # else a training that goes on has just removed it
                logger.warning(f"{path}: damaged, passed over ({error})")
            return None
        return checkpoint

    def best(self) -> Checkpoint:
        """The checkpoint with the best dev BLEU; the last one if none was validated.

        Update 0, which has learned nothing, does not count.

        Raises:
            NmtError: there is none.
        """
        saved = [checkpoint for checkpoint in self.checkpoints() if checkpoint.update]
        if not saved:
            raise NmtError(
                f"{self.folder}: no checkpoint yet", "let nmt train run until its first save"
            )
        return max(saved, key=lambda c: (-1.0 if c.dev_bleu is None else c.dev_bleu, c.update))

    def load_best(self, device: torch.device) -> tuple[int, Seq2Seq]:
        """The network with its best weights, ready to translate, and their update.

        A training at work may replace them by better ones meanwhile: those are taken then.

        Raises:
            NmtError: no checkpoint, or a damaged one.
        """
        while True:
            best = self.best()
            try:
                weights = best.load("model", device)
            except NmtError:
                if best.folder.exists():
                    raise
                continue
            model = self.build_model(initialise=False)
            model.load_state_dict(weights)
            return best.update, model.to(device).eval()

    def save(
        self,
        state: dict[str, Any],
        model: dict[str, Tensor],
        trainer: dict[str, Tensor],
    ) -> None:
        """Write a checkpoint, then remove those no longer wanted.

        The weights of an update are what they are: saved again at the same update, only
        its state is written, and a dev BLEU once known stays.

        Args:
            state: must hold ``update``; ``dev_bleu`` if validated.
            model: the weights to translate with.
            trainer: what training needs besides them to go on.

        Raises:
            NmtError: the disk is full; the earlier checkpoints stay.
        """
        name = f"{state['update']:08d}"
        folder = self.folder / "checkpoints" / name
        there = self._read(name) if folder.is_dir() else None
        if there is not None:
            known = {"dev_bleu": there.dev_bleu} if state.get("dev_bleu") is None else {}
            full = {**there.state, **state, **known}
            write_whole(folder / "state.json", _json(full).encode())
        else:
            if folder.is_dir():
                _remove(folder)  # unreadable, and said so
            self._write(folder, state, {"model": model, "trainer": trainer})
        self._prune()

    def _write(
        self, folder: Path, state: dict[str, Any], tensors: dict[str, dict[str, Tensor]]
    ) -> None:
        with replacing_folder(folder) as scratch, _full_disk_as_os_error():
            for name, group in tensors.items():
                save_file(_on_cpu(group), scratch / f"{name}.safetensors")
            files = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
            full = {**state, "identity": self.identity, "files": files}
            (scratch / "state.json").write_text(_json(full), encoding="utf-8")

    def last_good(self) -> tuple[Checkpoint, dict[str, dict[str, Tensor]]] | None:
        """The newest checkpoint that can be read, its tensors on the CPU; None without any.

        Raises:
            NmtError: there are some, and none is whole.
        """
        cpu = torch.device("cpu")  # a GPU may have no room for all of it a second time
        for checkpoint in reversed(self.checkpoints()):
            try:
                tensors = {name: checkpoint.load(name, cpu) for name in ("model", "trainer")}
            except NmtError as error:
                logger.warning(f"{error.message}; going back to the checkpoint before")
                continue
            return checkpoint, tensors
        if any(path.name.isdigit() for path in self.folder.glob("checkpoints/*")):
            raise NmtError(
                f"{self.folder / 'checkpoints'}: none of the checkpoints in it is whole",
                "put good copies back, or remove it to train from the start",
            )
        return None

    def tidy(self, update: int) -> None:
        """Remove what a kill or damage left behind; training goes on from `update`.

        That is: checkpoints of later updates, none of which could be read, and files and
        folders that were being written. To be called with the run locked.
        """
        for path in self.folder.glob("checkpoints/*"):
            later = path.name.isdigit() and int(path.name) > update
            if path.is_dir() and (later or _HALF_WRITTEN.match(path.name)):
                shutil.rmtree(path)
        for path in (*self.folder.iterdir(), *self.folder.glob("checkpoints/*/.*")):
            if _HALF_WRITTEN.match(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process trains this run; a kill takes the lock away too.

        Raises:
            NmtError: another one is at it.
        """
        import fcntl  # not on Windows, where runs are read but not trained

        with (self.folder / _LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NmtError(
                    f"{self.folder}: another nmt train is at work in it",
                    "wait until it ends, or name another folder in run",
                ) from None
            except OSError as error:  # a file system without locks
                logger.warning(
                    f"{self.folder}: cannot be locked ({error.strerror}); train it only once"
                )
            yield

    def replace_config(self, config: Config) -> None:
        """Record keys that were changed for the rest of the training."""
        write_whole(self.folder / "config.yaml", dump_config(config).encode())
        self.config = config

    def mark_finished(self, finished: bool = True) -> None:
        """Record that training ended by itself (or goes on after all)."""
        self.info = {**self.info, "finished": _now() if finished else None}
        write_whole(self.folder / "run.json", _json(self.info).encode())

    def _prune(self) -> None:
        saved = self.checkpoints()
        train = self.config.train
        best = _by_score(saved)[: train.keep_best]
        # Two of the newest: if the last one is found damaged there is one before it.
        keep = {checkpoint.update for checkpoint in [*saved[-2:], *best]}
        for checkpoint in saved:
            if checkpoint.update not in keep:
                _remove(checkpoint.folder)


def _by_score(saved: list[Checkpoint]) -> list[Checkpoint]:
    """Those that were validated, best first, of equals the later one."""
    scored = [checkpoint for checkpoint in saved if checkpoint.dev_bleu is not None]
    return sorted(scored, key=lambda c: (c.dev_bleu, c.update), reverse=True)


def newest_run(parent: Path) -> Path:
    """The run under `parent` that finished last.

    Raises:
        NmtError: there is none.
    """
    finished = []
    for path in parent.glob("*/run.json"):
        try:
            when = json.loads(path.read_text(encoding="utf-8")).get("finished")
        except (OSError, ValueError, AttributeError):
            continue
        if when:
            finished.append((when, path.parent))
    if not finished:
        raise NmtError(
            f"{parent}/: no finished run in it",
            "train one with nmt train, or name one with --model",
        )
    newest = max(finished)[1]
    logger.info(f"model: {newest}")
    return newest


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not folder.is_dir():
        raise NmtError(f"{folder}: no such run directory", "nmt train makes one; see runs/")
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = int(info["format"])
    except FileNotFoundError:
        raise NmtError(
            f"{folder}: not a run directory, or incomplete: run.json is missing"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NmtError(f"{path}: damaged ({error})") from error
    if found > FORMAT:
        raise NmtError(
            f"{path}: format {found}, this program reads up to {FORMAT}",
            "it was made by a newer nmt: git pull in its clone, and install it again",
        )
    return info


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a kill leaves it whole, or not there for any reader."""
    hidden = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def _full_disk_as_os_error() -> Iterator[None]:
    """Give back the number that safetensors hides in the text of its own exception."""
    try:
        yield
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
