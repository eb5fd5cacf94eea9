r"""Text in and out: lines, compression by suffix, the one `normalise`, safe file replacement.

A line ends at ``\n`` and nowhere else. Python's own line iteration also splits
at ``\r``, and `str.splitlines` at U+2028, NUL-adjacent controls and more; either
would shift a parallel corpus silently, so bytes are split here by hand.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import functools
import gzip
import hashlib
import lzma
import os
import re
import shutil
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError, where

_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BOM = b"\xef\xbb\xbf"
_SPACES = re.compile(r"\s+")
# Neither line ends nor spaces, and nothing a reader would see: they only split
# the vocabulary. U+200D and U+FE0F stay: they hold emoji together.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")


def open_bytes(path: Path) -> IO[bytes]:
    """Open `path` for reading, decompressing ``.gz``, ``.bz2`` and ``.xz`` by suffix.

    Raises:
        NmtError: the file is missing, a directory, or may not be read.
    """
    try:
        opener = _OPENERS.get(path.suffix)
        file: IO[bytes] = path.open("rb") if opener is None else opener(path)
        return file
    except FileNotFoundError:
        raise NmtError(f"{path}: no such file", _similar_file(path)) from None
    except IsADirectoryError:
        raise NmtError(f"{path}: is a directory, a file is needed") from None
    except OSError as error:
        raise NmtError(f"{path}: {error.strerror or error}") from error


def _similar_file(path: Path) -> str:
    import difflib

    if path.parent.is_dir():
        names = sorted(child.name for child in path.parent.iterdir())
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "relative paths start at the folder the command is run in"


def read_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file without their final ``\n``.

    A byte-order mark at the start is dropped and so is one ``\r`` before a line
    end (files from Windows); a missing final newline makes no extra line.

    Raises:
        NmtError: missing file, not UTF-8 (with the line), damaged compression.
    """
    number = 0
    with open_bytes(path) as file:
        try:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith(_BOM):
                    raw = raw[len(_BOM) :]
                yield decode_line(raw, path, number)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
            raise NmtError(
                f"{where(path, number)}: compressed data is damaged or cut off ({error})",
                "make or fetch the file again; nothing was written",
            ) from error


def decode_line(raw: bytes, path: object, number: int) -> str:
    r"""Decode one line of bytes, its ``\n`` or ``\r\n`` removed.

    Raises:
        NmtError: the bytes are not UTF-8; names file and line.
    """
    if raw.endswith(b"\n"):
        raw = raw[:-1]
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NmtError(
            f"{where(path, number)}: not valid UTF-8 (byte {error.start + 1} of the line is "
            f"0x{raw[error.start]:02x})",
            "convert the file first, for example: iconv -f GB18030 -t UTF-8 IN > OUT",
        ) from error


@functools.lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def normalise(text: str, *, simplify: bool) -> str:
    """Bring text to the form the model sees: the same for every command.

    Unicode NFKC (full-width letters, digits and punctuation become half-width),
    invisible control characters removed, white space runs become one space, ends
    stripped. Idempotent. References used for scoring never pass through here.

    Args:
        text: one line.
        simplify: also convert Traditional characters to Simplified with OpenCC
            (``t2s``); meant for the Chinese side only.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
    return _simplifier()(text) if simplify else text


def fence_key(text: str) -> str:
    """What makes two sentences the same for the fence between train, dev and test.

    Case, punctuation and spaces don't count; a text made of nothing else is kept
    as it is, so that "?!" and "..." differ.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or folded


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that `path` holds either its old bytes or all of the new ones.

    Written beside, fsynced, renamed. On any error the half-written file is
    removed and the old one stays.

    Raises:
        NmtError: the disk is full or the folder may not be written.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder so that it appears whole or not at all, replacing an older one.

    Yields a scratch folder beside `folder`; on success its files are fsynced and
    it takes the name, on any error it is removed and the old folder stays.

    Raises:
        NmtError: the disk is full or the parent may not be written.
    """
    with writing_to(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield scratch
            for file in scratch.rglob("*"):
                if file.is_file():
                    _sync(file)
            scratch.chmod(0o777 & ~_umask())
            if folder.exists():
                # A folder can't be renamed over a full one: step aside, then swap in.
                aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
                folder.rename(aside / "old")
                scratch.rename(folder)
                shutil.rmtree(aside, ignore_errors=True)
            else:
                scratch.rename(folder)
            _sync(folder.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what an operating system says about a failed write into the house's message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NmtError(
                f"{path}: the disk is full; nothing was left half-written",
                "free some space and run the same command again",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise NmtError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
