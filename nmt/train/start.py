"""Start a training from the weights of another model, for fine-tuning.

All that the run needs of the other model and of further dev sets is copied when the run directory
is created, so that they may be removed afterwards.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from nmt.align.aligner import Aligner
from nmt.config.schema import Config, ModelConfig
from nmt.data.manifest import Manifest
from nmt.data.packed import SIDES
from nmt.data.parallel import check_same_length
from nmt.errors import NmtError
from nmt.io.read import read_lines
from nmt.run.directory import ALIGNER, Run
from nmt.run.models import Model, open_model
from nmt.run.package import Package
from nmt.run.records import read_checked

WEIGHTS = "start.safetensors"  # file names in a run directory
START_ALIGNER = f"start.{ALIGNER}"
_REGULARISATION = ("dropout", "word_dropout")  # may differ: they do not change the weights


def follow_start(config: Config, manifest: Manifest) -> Config:
    """Return `config` with the model section of ``train.start_from`` where it is left out.

    An existing run has recorded the section; the start model is not needed.

    Raises:
        NmtError: the start model is missing, has other tokenizers than the corpus, or a key of
            the model section contradicts it.
    """
    path = config.train.start_from
    if path is None:
        return config
    if (config.run / "run.json").exists():
        # `nmt.train.resume` compares the keys that are not left out.
        return _fill_model(config, Run.open(config.run).config.model)
    start = open_model(path)
    for side in SIDES:
        if manifest.tokenizers[side].sha256 != start.info.tokenizers[side]:
            raise NmtError(
                f"{config.data.dir}: its {side} tokenizer is not that of train.start_from, {path}",
                f"set data.tokenizers: {path} and run nmt prepare again",
            )
    old, new = start.config.model, config.model
    for key in sorted(new.model_fields_set - {*_REGULARISATION}):
        if getattr(new, key) != getattr(old, key):
            raise NmtError(
                f"model.{key}: {getattr(new, key)} contradicts train.start_from, {path}, "
                f"which has {getattr(old, key)}",
                f"remove model.{key}: the model section follows the start model",
            )
    return _fill_model(config, old)


def _fill_model(config: Config, model: ModelConfig) -> Config:
    """Return `config` with the keys of `model` that it leaves out, except dropout."""
    keys = type(model).model_fields.keys() - config.model.model_fields_set - {"dropout"}
    changes = {key: getattr(model, key) for key in keys}
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def start_files(config: Config) -> dict[str, bytes]:
    """Return the files that a new run keeps of the start model and of further dev sets.

    Raises:
        NmtError: a model or a dev set is missing or damaged.
    """
    files = {}
    if config.train.start_from is not None:
        start = open_model(config.train.start_from)
        files[WEIGHTS] = save(start.weights())
        aligner = _aligner_bytes(start)
        if aligner is not None:
            files[START_ALIGNER] = aligner
    for number, folder in enumerate(config.train.also_validate):
        texts = []
        for side in SIDES:
            path = folder / f"dev.{side}.txt"
            if not path.is_file():
                raise NmtError(
                    f"train.also_validate: {folder}: no dev set: {path.name} is missing",
                    "name run directories or prepared corpora",
                )
            texts.append((str(path), list(read_lines(path))))
        check_same_length(texts)
        for side, (_, lines) in zip(SIDES, texts, strict=True):
            files[_dev_name(number, side)] = "".join(f"{line}\n" for line in lines).encode()
    return files


def load_start(run: Run) -> dict[str, Tensor] | None:
    """Return the weights that a run starts from; None for random weights.

    Raises:
        NmtError: the file is damaged.
    """
    if WEIGHTS not in run.info.files:
        return None
    return load(read_checked(run.folder / WEIGHTS, run.info.files[WEIGHTS]))


def load_start_aligner(run: Run) -> Aligner | None:
    """Return the aligner of the start model, None if it has none."""
    return Aligner.load(run.folder / START_ALIGNER) if START_ALIGNER in run.info.files else None


def further_dev_sets(run: Run) -> dict[str, tuple[list[str], list[str]]]:
    """Return source and target lines of the sets of ``train.also_validate`` by name."""
    return {
        str(folder): (
            _read_text(run, _dev_name(number, "src")), _read_text(run, _dev_name(number, "trg")),
        )
        for number, folder in enumerate(run.config.train.also_validate)
    }  # fmt: skip


def _read_text(run: Run, name: str) -> list[str]:
    """Return the lines of a recorded text file of a run."""
    read_checked(run.folder / name, run.info.files[name])
    return list(read_lines(run.folder / name))


def _aligner_bytes(model: Model) -> bytes | None:
    if isinstance(model, Package):
        return model.aligner
    path: Path = model.folder / ALIGNER
    return path.read_bytes() if path.exists() else None


def _dev_name(number: int, side: str) -> str:
    return f"also{number}.{side}.txt"
