"""Packages: one file with all that translation needs.

A package is a safetensors file. Its metadata are one JSON record, `PackageInfo`. Its tensors:

    weight/NAME              float16 or float32, or int8 with
    scale/NAME               the scale of each row of an int8 weight, float32 `[rows]`
    src.model trg.model      bytes of the tokenizers, uint8
    aligner.safetensors      bytes of the statistical aligner, uint8; optional

Nothing is compressed, unpickled or extracted to the disk. The checksum covers every byte.
"""

# Over 400 lines: writer and reader of one file format.
from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nmt.config.load import build_config
from nmt.config.sources import ParallelSource, Source
from nmt.data.lengths import LengthStatistics
from nmt.data.manifest import load_manifest
from nmt.data.packed import SIDES
from nmt.data.tokenizer import Tokenizer
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.run.directory import ALIGNER, Run
from nmt.run.journal import read_journal
from nmt.run.records import Record, read_bytes

FORMAT = 1
SUFFIX = ".nmt"
Dtype = Literal["float16", "float32", "int8"]

_MAX_SIZE = 1 << 32  # bytes of a package
_MAX_HEADER = 1 << 22  # bytes of the safetensors header
_NO_CHECKSUM = "0" * 64  # in place of the checksum while it is computed
_WEIGHT, _SCALE = "weight/", "scale/"
_FILES = (*(f"{side}.model" for side in SIDES), ALIGNER)
_DTYPES = (torch.float32, torch.float16, torch.int8)
_RESTORE = "copy the package again, or write it again with nmt package"

Value = TypeVar("Value")


class SourceCard(Record):
    """One source of training text.

    Attributes:
        name: file name, or the kind of source.
        licence: as in the configuration; None if it has none.
        weight: how often each pair was used.
    """

    name: str
    licence: str | None
    weight: float


class DevScores(Record):
    """Scores of the weights on the dev set, 0 to 100, before conversion to `dtype`."""

    bleu: float
    chrf: float
    sentences: int
    signature: str


class Card(Record):
    """The model card.

    Attributes:
        name: name of the run directory.
        licence: of the model; None if not stated.
        date: end of the training, or its start if it has not finished; ISO 8601.
        finished: whether the training has finished.
        program: version of nmt that trained the model.
        sources: training text.
        pairs: training pairs, repeats included; None if the manifest is missing.
        update: optimizer steps of the weights.
        dev: scores of the weights; None without a validation.
    """

    name: str
    licence: str | None
    date: str
    finished: bool
    program: str
    sources: list[SourceCard]
    pairs: int | None
    update: int
    dev: DevScores | None


class PackageInfo(Record):
    """Metadata of a package.

    Attributes:
        format: format of the package.
        checksum: SHA-256 of the file with 64 zeros in place of this value.
        dtype: of the weight matrices.
        identity: `Run.identity` of the packaged run.
        tokenizers: SHA-256 of each side's tokenizer.
        length_statistics: lengths of the dev set; None if it had no usable pair.
        config: configuration of the run, paths without their folders.
        card: the model card.
    """

    format: int
    checksum: str
    dtype: Dtype
    identity: str
    tokenizers: dict[str, str]
    length_statistics: LengthStatistics | None
    config: dict[str, Any]
    card: Card


class Package:
    """An opened package; has the attributes of `nmt.run.directory.Run` that translation needs.

    Attributes:
        path: the file.
        config: the configuration that the model was trained with, paths without folders.
        src: tokenizer of the Chinese side.
        trg: tokenizer of the English side.
        info: the metadata.
        aligner: bytes of ``aligner.safetensors``, None without an aligner.
    """

    def __init__(self, path: Path, info: PackageInfo, tensors: dict[str, Tensor]) -> None:
        self.path = path
        self.info = info
        self.config = build_config(info.config, str(path))
        files = {name: tensors.pop(name).numpy().tobytes() for name in _FILES if name in tensors}
        self.aligner = files.get(ALIGNER)
        for side in SIDES:
            data = files.get(f"{side}.model", b"")
            if hashlib.sha256(data).hexdigest() != info.tokenizers.get(side):
                raise NmtError(f"{path}: damaged: {side}.model differs from its record", _RESTORE)
        simplify = self.config.data.to_simplified
        self.src = Tokenizer.parse(files["src.model"], f"{path}: src.model", simplify=simplify)
        self.trg = Tokenizer.parse(files["trg.model"], f"{path}: trg.model", simplify=False)
        self._tensors = tensors

    @classmethod
    def open(cls, path: Path) -> Package:
        """Read and check a package.

        Raises:
            NmtError: the file is missing, not a package, damaged, or of a newer format.
        """
        data = _read(path)
        info = _parse_info(data, path)
        if _checksum(data, info.checksum) != info.checksum:
            raise NmtError(f"{path}: damaged: its checksum differs from the recorded one", _RESTORE)
        try:
            tensors = load(data)
        except SafetensorError as error:
            raise NmtError(f"{path}: damaged ({error})", _RESTORE) from error
        for name, tensor in tensors.items():
            if name in _FILES:
                is_valid = tensor.dtype == torch.uint8
            else:
                is_valid = name.startswith((_WEIGHT, _SCALE)) and tensor.dtype in _DTYPES
            if not is_valid:
                raise NmtError(f"{path}: unexpected tensor {name} ({tensor.dtype})", _RESTORE)
        return cls(path, info, tensors)

    @property
    def identity(self) -> str:
        """Hash of the tokenizers and the shape of the network."""
        return self.info.identity

    def weights(self) -> dict[str, Tensor]:
        """Return the weights in float32.

        Raises:
            NmtError: a scale is missing or has the wrong shape.
        """
        weights = {}
        for key, tensor in self._tensors.items():
            if key.startswith(_SCALE):
                continue
            name = key.removeprefix(_WEIGHT)
            if tensor.dtype == torch.int8:
                scale = self._tensors.get(_SCALE + name)
                if scale is None or scale.shape != tensor.shape[:1]:
                    raise NmtError(f"{self.path}: {name}: no scale for each row", _RESTORE)
                weights[name] = tensor.float() * scale.float().unsqueeze(1)
            else:
                weights[name] = tensor.float()
        return weights

    def load_model(self, device: torch.device) -> tuple[int, Seq2Seq]:
        """Return the update of the weights, and the network in evaluation mode.

        Raises:
            NmtError: the weights do not fit the network of the configuration.
        """
        weights = self.weights()
        self._check_size(weights)
        model = Seq2Seq(len(self.src), len(self.trg), self.config.model, initialise=False)
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise NmtError(f"{self.path}: damaged ({reason})", _RESTORE) from error
        return self.info.card.update, model.to(device).eval()

    def _check_size(self, weights: dict[str, Tensor]) -> None:
        """Raise before a network is allocated that is larger than its weights."""
        sizes = self.config.model
        parts = [
            sizes.embedding_dim * (len(self.src) + len(self.trg)),
            6 * sizes.encoder_hidden**2,  # the recurrent matrices of one layer
            3 * sizes.decoder_hidden**2,
        ]
        if sizes.attention == "additive":
            parts.append(sizes.attention_hidden * sizes.decoder_hidden)
        if max(parts) > sum(weight.numel() for weight in weights.values()):
            raise NmtError(f"{self.path}: damaged (size mismatch of network and weights)", _RESTORE)

    def text(self, name: str, side: str) -> list[str]:
        """Raise: a package has no dev and test sets."""
        raise NmtError(
            f"{self.path}: a package has no {name} set ({side})",
            "name the texts: --src FILE --ref FILE",
        )


def pack(
    run: Run, dtype: Dtype = "float16", *, with_aligner: bool = False, licence: str | None = None
) -> bytes:
    """Return the package of a run's best checkpoint; the same run gives the same bytes.

    Args:
        run: the run.
        dtype: of the weights. int8 applies to matrices, with a scale for each row.
        with_aligner: include the statistical aligner.
        licence: of the model, for the card.

    Raises:
        NmtError: there is no checkpoint; a weight does not fit `dtype`; the aligner is missing.
    """
    best, weights = run.checkpoints.load_best(torch.device("cpu"))
    tensors = {f"{side}.model": _bytes_tensor(getattr(run, side).model) for side in SIDES}
    if with_aligner:
        path = run.folder / ALIGNER
        if not path.exists():
            raise NmtError(
                f"{path}: missing, --with-aligner needs it",
                "nmt align learns it; so does training with train.guided_alignment",
            )
        tensors[ALIGNER] = _bytes_tensor(read_bytes(path, _MAX_SIZE))
    for name, weight in weights.items():
        tensors |= _convert(f"{run.folder}: {name}", name, weight, dtype)
    info = PackageInfo(
        format=FORMAT,
        checksum=_NO_CHECKSUM,
        dtype=dtype,
        identity=run.identity,
        tokenizers=run.info.tokenizers,
        length_statistics=run.info.length_statistics,
        config=_without_folders(run.config).model_dump(mode="json"),
        card=make_card(run, best.update, licence),
    )
    # One entry only: safetensors writes several in no fixed order.
    data = save(tensors, {"nmt": json.dumps(info.model_dump(mode="json"))})
    return data.replace(_NO_CHECKSUM.encode(), _checksum(data, _NO_CHECKSUM).encode(), 1)


def make_card(run: Run, update: int, licence: str | None) -> Card:
    """Return the model card of the weights of one update."""
    scores = None
    for record in read_journal(run.folder):
        if record.get("kind") == "validation" and record.get("update") == update:
            scores = DevScores(
                bleu=record["dev_bleu"], chrf=record["dev_chrf"],
                sentences=record["sentences"], signature=record["signature"],
            )  # fmt: skip
    try:
        pairs = load_manifest(run.folder).train.pairs
    except NmtError:
        pairs = None
    info = run.info
    return Card(
        name=run.folder.resolve().name,
        licence=licence,
        date=info.finished or info.created,
        finished=info.finished is not None,
        program=info.program,
        sources=[
            SourceCard(
                name=_source_name(source),
                licence=source.licence,
                weight=source.weight,
            )
            for source in run.config.data.sources
        ],
        pairs=pairs,
        update=update,
        dev=scores,
    )


def _source_name(source: Source) -> str:
    path = source.src if isinstance(source, ParallelSource) else getattr(source, "path", None)
    return source.source if path is None else path.name


def read_info(path: Path) -> PackageInfo:
    """Read the metadata of a package without its tensors; the checksum is not verified.

    Raises:
        NmtError: the file is missing, not a package, or of a newer format.
    """
    return _parse_info(_read(path, 8 + _MAX_HEADER), path)


def _read(path: Path, count: int = -1) -> bytes:
    if not path.exists():
        raise NmtError(f"{path}: no such package", "nmt package RUN writes one; nmt models lists")
    return read_bytes(path, _MAX_SIZE, count)


def _parse_info(data: bytes, path: Path) -> PackageInfo:
    """Parse the metadata at the beginning of a package."""
    not_package = NmtError(f"{path}: not a package of nmt", "nmt package RUN --output FILE")
    if len(data) < 8:
        raise not_package
    (size,) = struct.unpack("<Q", data[:8])
    if not data[8:].startswith(b'{"__metadata__":{"nmt":') or size > _MAX_HEADER:
        raise not_package
    try:
        values = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["nmt"])
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        if isinstance(values.get("format"), int) and values["format"] > FORMAT:
            raise NmtError(
                f"{path}: format {values['format']}, this program reads up to {FORMAT}",
                "the package was written by a newer nmt: install that one",
            )
        return PackageInfo.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NmtError(f"{path}: damaged ({where}: {first['msg']})", _RESTORE) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise NmtError(f"{path}: damaged ({error})", _RESTORE) from error


def _checksum(data: bytes, recorded: str) -> str:
    """Return the SHA-256 of a package with zeros in place of its recorded checksum."""
    at = data.find(recorded.encode("utf-8", "replace"), 0, _MAX_HEADER)
    if at < 0 or len(recorded) != len(_NO_CHECKSUM):
        return ""
    digest = hashlib.sha256(memoryview(data)[:at])
    digest.update(_NO_CHECKSUM.encode())
    digest.update(memoryview(data)[at + len(_NO_CHECKSUM) :])
    return digest.hexdigest()


def _convert(title: str, name: str, weight: Tensor, dtype: Dtype) -> dict[str, Tensor]:
    """Return the tensors that store one weight."""
    if not torch.isfinite(weight).all():
        raise NmtError(f"{title} has non-finite values", "the training diverged; train again")
    weight = weight.float()
    if dtype == "int8" and weight.dim() == 2:
        scale = weight.abs().amax(dim=1) / 127
        rows = weight / scale.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
        return {_WEIGHT + name: rows.round().to(torch.int8), _SCALE + name: scale}
    if dtype == "float16":
        half = weight.half()
        if not torch.isfinite(half).all():
            raise NmtError(f"{title} exceeds the range of float16", "use --dtype float32")
        return {_WEIGHT + name: half}
    return {_WEIGHT + name: weight}


def _bytes_tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _without_folders(value: Value) -> Value:
    """Return a value in which each path is reduced to its last part."""
    result: Any = value
    if isinstance(value, Path):
        result = Path(value.name)
    elif isinstance(value, BaseModel):
        fields = {key: _without_folders(getattr(value, key)) for key in type(value).model_fields}
        result = value.model_copy(update=fields)
    elif isinstance(value, list):
        result = [_without_folders(item) for item in value]
    return result  # type: ignore[no-any-return]
