"""Checked reading of the files of a run, and JSON records with a checksum."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nmt.errors import NmtError
from nmt.io.write import file_sha256

FORMAT = 1
_MAX_RECORD = 1 << 22  # bytes of a JSON record or a configuration
_RESTORE = "put the original file back"


class Record(BaseModel):
    """Base class of JSON records."""

    model_config = ConfigDict(extra="forbid", frozen=True)


RecordType = TypeVar("RecordType", bound=Record)


class FileRecord(Record):
    """Size and hash of a file, compared before the file is parsed."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Return the record of an existing file."""
        return cls(size=path.stat().st_size, sha256=file_sha256(path))

    @classmethod
    def of_bytes(cls, data: bytes) -> FileRecord:
        """Return the record of a file with this content."""
        return cls(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def read_bytes(path: Path, max_size: int = _MAX_RECORD, count: int = -1) -> bytes:
    """Read a regular file of at most `max_size` bytes; `count` limits the bytes read.

    Raises:
        NmtError: the file is missing, not a regular file, too large or not readable.
    """
    try:
        status = path.stat()  # before opening: a pipe would block
        if not stat.S_ISREG(status.st_mode):
            raise NmtError(f"{path}: damaged: not a regular file", _RESTORE)
        if status.st_size > max_size:
            raise NmtError(
                f"{path}: damaged: {status.st_size:,} bytes, at most {max_size:,} are expected",
                _RESTORE,
            )
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise NmtError(f"{path}: missing or damaged ({error.strerror or error})") from error


def read_checked(path: Path, *records: FileRecord) -> bytes:
    """Read a file whose size and hash must equal those of one of `records`.

    Raises:
        NmtError: the file is missing or differs.
    """
    data = read_bytes(path, max(record.size for record in records))
    if FileRecord.of_bytes(data) not in records:
        raise NmtError(f"{path}: damaged: its checksum differs from the one recorded", _RESTORE)
    return data


def dump_record(record: Record) -> bytes:
    """Return a record as JSON with a checksum of its values."""
    values = record.model_dump(mode="json")
    values["checksum"] = _checksum(values)
    return (json.dumps(values, ensure_ascii=False, indent=1) + "\n").encode()


def load_record(path: Path, model: type[RecordType]) -> RecordType:
    """Read a record written by `dump_record`.

    Raises:
        NmtError: the file is missing, damaged, or of a newer format.
    """
    data = read_bytes(path)
    try:
        values = json.loads(data)
        if not isinstance(values, dict):
            raise ValueError("not a JSON object")
        if values.get("format", FORMAT) > FORMAT:
            raise NmtError(
                f"{path}: format {values['format']}, this program reads up to {FORMAT}",
                "it was made by a newer nmt: git pull in its clone, and install it again",
            )
        checksum = values.pop("checksum", None)
        if checksum != _checksum(values):
            raise ValueError("its checksum differs from the one recorded")
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NmtError(f"{path}: damaged ({where}: {first['msg']})", _RESTORE) from None
    except (ValueError, RecursionError, TypeError) as error:
        raise NmtError(f"{path}: damaged ({error})", _RESTORE) from error


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
