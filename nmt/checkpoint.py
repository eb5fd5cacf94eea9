"""The run directory: all that a trained model needs, checked when it is opened.

    runs/quickstart/
      run.json             format, identity of tokenizers and network, whether finished
      config.yaml          the whole configuration
      src.model trg.model  the tokenizers
      dev.*.txt test.*.txt raw text for validation and evaluation
      manifest.json        what the corpus was
      train.jsonl          the journal
      checkpoints/
        00000500/          model.safetensors, trainer.safetensors, state.json

Weights are in safetensors, everything else is JSON, YAML or text: nothing is unpickled.
A checkpoint appears whole or not at all. It carries the run's identity and the hashes of
its files, so files of two runs, or a damaged one, can't be mixed up unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import nmt
from nmt.config import Config, build_config, dump_config
from nmt.corpus import PackedSet
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.runtime import say, warn
from nmt.text import file_sha256, read_lines, replacing, replacing_folder
from nmt.tokenizer import Tokenizer

FORMAT = 1
_TEXTS = ("dev.src.txt", "dev.trg.txt", "test.src.txt", "test.trg.txt")
_COPIED = ("src.model", "trg.model", "manifest.json", *_TEXTS)


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
                raise NmtError(f"{path}: damaged: its checksum differs from the one recorded")
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
        self.src = Tokenizer.load(folder / "src.model", simplify=config.data.simplify)
        self.trg = Tokenizer.load(folder / "trg.model", simplify=False)
        for side, tokenizer in (("src", self.src), ("trg", self.trg)):
            if tokenizer.sha256 != info["tokenizers"][side]:
                raise NmtError(
                    f"{folder / side}.model: is not the tokenizer this run was trained with",
                    "put the original file back: weights and pieces belong together",
                )

    @classmethod
    def create(cls, config: Config, corpus: Path) -> Run:
        """Start a run directory from a prepared corpus.

        Raises:
            NmtError: it can't be written, or holds something else.
        """
        folder = config.run
        if folder.exists() and any(folder.iterdir()):
            raise NmtError(
                f"{folder}: is there, and not a run of nmt train",
                "name another folder in run, or move this one away",
            )
        with replacing_folder(folder) as scratch:
            for name in _COPIED:
                shutil.copyfile(corpus / name, scratch / name)
            (scratch / "checkpoints").mkdir()
            (scratch / "config.yaml").write_text(dump_config(config), encoding="utf-8")
            info = {
                "format": FORMAT,
                "program": nmt.__version__,
                "created": _now(),
                "finished": None,
                "tokenizers": {
                    side: file_sha256(scratch / f"{side}.model") for side in ("src", "trg")
                },
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
            import yaml

            tree = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise NmtError(f"{folder / 'config.yaml'}: missing or damaged ({error})") from error
        return cls(folder, build_config(tree, str(folder / "config.yaml")), info)

    @property
    def identity(self) -> str:
        """Hash of what weights must fit: tokenizers and the shape of the network."""
        network = self.config.model.model_dump(mode="json")
        text = json.dumps([self.info["tokenizers"], network], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def text(self, name: str, side: str) -> list[str]:
        """Raw lines of dev or test: `side` is src or trg."""
        return list(read_lines(self.folder / f"{name}.{side}.txt"))

    def build_model(self) -> Seq2Seq:
        """The network with fresh weights, drawn from torch's random state."""
        model = self.config.model.model_dump()
        return Seq2Seq(src_vocab=len(self.src), trg_vocab=len(self.trg), **model)

    def checkpoints(self) -> list[Checkpoint]:
        """All that are readable, oldest first; a damaged one is warned of and left out."""
        found = []
        for path in sorted(self.folder.glob("checkpoints/*/state.json")):
            if path.parent.name.startswith("."):
                continue  # being written, or left behind by a kill
            try:
                state = json.loads(path.read_text(encoding="utf-8"))
                checkpoint = Checkpoint(path.parent, state)
                if state["identity"] != self.identity:
                    raise NmtError(
                        f"{path.parent}: belongs to another run (other tokenizers or network)"
                    )
                found.append((checkpoint.update, checkpoint))
            except (OSError, ValueError, KeyError, TypeError) as error:
                warn(f"{path}: damaged, passed over ({error})")
        return [checkpoint for _, checkpoint in sorted(found, key=lambda pair: pair[0])]

    def best(self) -> Checkpoint:
        """The checkpoint with the best dev BLEU; the last one if none was validated.

        Raises:
            NmtError: there is none.
        """
        saved = self.checkpoints()
        if not saved:
            raise NmtError(
                f"{self.folder}: no checkpoint yet", "let nmt train run until its first save"
            )
        return max(saved, key=lambda c: (-1.0 if c.dev_bleu is None else c.dev_bleu, c.update))

    def load_best(self, device: torch.device) -> Seq2Seq:
        """The network with its best weights, ready to translate.

        Raises:
            NmtError: no checkpoint, or a damaged one.
        """
        best = self.best()
        model = self.build_model()
        model.load_state_dict(best.load("model", device))
        return model.to(device).eval()

    def save(
        self,
        state: dict[str, Any],
        model: dict[str, Tensor],
        trainer: dict[str, Tensor],
    ) -> Checkpoint:
        """Write a checkpoint, then remove those no longer wanted.

        Args:
            state: must hold ``update``; ``dev_bleu`` if validated.
            model: the weights to translate with.
            trainer: what training needs besides them to go on.

        Raises:
            NmtError: the disk is full; the earlier checkpoints stay.
        """
        folder = self.folder / "checkpoints" / f"{state['update']:08d}"
        with replacing_folder(folder) as scratch:
            save_file(_on_cpu(model), scratch / "model.safetensors")
            save_file(_on_cpu(trainer), scratch / "trainer.safetensors")
            files = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
            full = {**state, "identity": self.identity, "files": files}
            (scratch / "state.json").write_text(_json(full), encoding="utf-8")
        self._prune()
        return Checkpoint(folder, full)

    def last_good(
        self, device: torch.device
    ) -> tuple[Checkpoint, dict[str, dict[str, Tensor]]] | None:
        """The newest checkpoint that can be read, with its tensors; None without any."""
        for checkpoint in reversed(self.checkpoints()):
            try:
                tensors = {name: checkpoint.load(name, device) for name in ("model", "trainer")}
            except NmtError as error:
                warn(f"{error.message}; going back to the checkpoint before")
                continue
            return checkpoint, tensors
        return None

    def drop_after(self, update: int) -> None:
        """Remove damaged checkpoints newer than the one training goes on from."""
        for checkpoint in self.checkpoints():
            if checkpoint.update > update:
                shutil.rmtree(checkpoint.folder)

    def replace_config(self, config: Config) -> None:
        """Record keys that were changed for the rest of the training."""
        with replacing(self.folder / "config.yaml") as file:
            file.write(dump_config(config).encode())
        self.config = config

    def mark_finished(self, finished: bool = True) -> None:
        """Record that training ended by itself (or goes on after all)."""
        self.info = {**self.info, "finished": _now() if finished else None}
        with replacing(self.folder / "run.json") as file:
            file.write(_json(self.info).encode())

    def _prune(self) -> None:
        saved = self.checkpoints()
        scored = [c for c in saved if c.dev_bleu is not None]
        scored.sort(key=lambda c: (c.dev_bleu, c.update), reverse=True)
        # Two of the newest: if the last one is found damaged there is one before it.
        keep = {c.update for c in [*saved[-2:], *scored[: self.config.train.keep_best]]}
        for checkpoint in saved:
            if checkpoint.update not in keep:
                shutil.rmtree(checkpoint.folder)


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
    say(f"model: {newest}")
    return newest


def open_corpus(config: Config) -> PackedSet:
    """The prepared training set that `config.data.dir` names."""
    return PackedSet.open(config.data.dir, "train")


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
            "it was made by a newer nmt: pip install --upgrade nmt-zh-en",
        )
    return info


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
