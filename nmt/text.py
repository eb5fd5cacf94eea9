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
import glob
import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import sys
import tempfile
import time
import unicodedata
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError, where

BOM = b"\xef\xbb\xbf"
_SPACES = re.compile(r"\s+")
# Ideographs of every extension, compatibility forms and the zero 〇.
HAN = "[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_HAN = re.compile(HAN)
# Neither line ends nor spaces, and nothing a reader would see: they only split
# the vocabulary. U+200D and U+FE0F stay: they hold emoji together.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]")


def _open_zstd(file: Any, mode: Any = "rb") -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise NmtError(
            f"{getattr(file, 'name', file)}: .zst needs the package backports.zstd",
            "pip install 'nmt-zh-en[formats]', or in a clone: pip install -e '.[formats]'",
        ) from None
    return zstd.open(file, mode)


_UNFINISHED = ".part"
_JUST_MADE = 60.0  # seconds
_DESCRIPTORS = ("/dev", "/dev/fd", "/proc/self/fd")  # names in them are of what is open already
_REFUSED = (
    errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENOTEMPTY, errno.ENAMETOOLONG,
)  # fmt: skip
_OPENERS: dict[str, Callable[[Any], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zstd,
}  # fmt: skip


COMPRESSED = tuple(_OPENERS)

_WRITERS: dict[str, Callable[[IO[bytes]], Any]] = {
    # Without name and time in it: the same text has the same bytes.
    ".gz": lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0),
    ".bz2": lambda file: bz2.BZ2File(file, "wb"),
    ".xz": lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115 (closed by `compressing`)
    ".zst": lambda file: _open_zstd(file, "wb"),
}


class Meter:
    """How far a number of files have been read, by their bytes on disk.

    Args:
        total: bytes of all files that will be read.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._open: list[IO[bytes]] = []
        self._done = 0

    def watch(self, file: IO[bytes]) -> None:
        """Count what is read of `file`, an uncompressed view of the disk."""
        self._open.append(file)

    @property
    def fraction(self) -> float:
        """0 to 1; 0 if nothing is known, as for standard input."""
        for file in [file for file in self._open if file.closed]:
            self._done += Path(file.name).stat().st_size
            self._open.remove(file)
        read = self._done + sum(file.tell() for file in self._open)
        return min(1.0, read / self.total) if self.total else 0.0


@contextlib.contextmanager
def open_bytes(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """Open `path` for reading; ``.gz .bz2 .xz .zst`` are decompressed, ``-`` is stdin.

    Raises:
        NmtError: the file is missing, a directory, or may not be read.
    """
    if str(path) == "-":
        if sys.stdin is None:
            raise NmtError("standard input is closed", "name a file")
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            if meter is not None:
                meter.watch(file)
            opener = _OPENERS.get(path.suffix)
            if opener is not None:
                file = stack.enter_context(opener(file))
        except FileNotFoundError:
            raise NmtError(f"{path}: no such file", _similar_file(path)) from None
        except IsADirectoryError:
            raise NmtError(f"{path}: is a directory, a file is needed") from None
        except OSError as error:
            raise NmtError(f"{path}: {error.strerror or error}") from error
        yield file


def _similar_file(path: Path) -> str:
    import difflib

    with contextlib.suppress(OSError):  # a folder that may not be looked into
        names = sorted(child.name for child in path.parent.iterdir())
        close = difflib.get_close_matches(path.name, names, n=1)
        if close:
            return f"did you mean {path.parent / close[0]}?"
    return "relative paths start at the folder the command is run in"


def read_lines(
    path: Path, encoding: str | None = None, meter: Meter | None = None, errors: str = "strict"
) -> Generator[str, None, None]:
    r"""Yield the lines of a file without their final ``\n``.

    A byte-order mark at the start is dropped and so is one ``\r`` before a line
    end (files from Windows); a missing final newline makes no extra line.

    Args:
        path: the file, or ``-``.
        encoding: of a corpus source, whose key it is; None is UTF-8 for all else.
        meter: told how far the file has been read.
        errors: ``replace`` puts U+FFFD in the place of what is not in the encoding.

    Raises:
        NmtError: missing file, wrong encoding (with the line), damaged compression.
    """
    number = 0
    with open_bytes(path, meter) as file:
        try:
            raw_lines = _utf16_lines(file) if encoding == "utf-16" else file
            for number, raw in enumerate(raw_lines, start=1):
                if number == 1:
                    raw = raw.removeprefix(BOM)
                yield decode_line(raw, path, number, encoding, errors)
        except UnicodeDecodeError as error:
            raise NmtError(
                f"{where(path, number + 1)}: not valid UTF-16 ({error.reason})"
            ) from None
        except Exception as error:
            if not is_damage(error):
                raise
            raise damaged(path, number, error) from error


def is_damage(error: Exception) -> bool:
    """Whether decompression or the disk, not our code, raised this while reading."""
    # zstd's own error has no base class but Exception.
    known = (EOFError, zlib.error, lzma.LZMAError, OSError)
    return isinstance(error, known) or type(error).__name__ == "ZstdError"


def damaged(path: object, number: int, error: Exception) -> NmtError:
    """The message for compressed data that can't be read on after line `number`."""
    return NmtError(
        f"{where(path, number or None)}: compressed data is damaged or cut off ({error})",
        "make or fetch the file again; nothing was written",
    )


def _utf16_lines(file: IO[bytes]) -> Iterator[bytes]:
    with io.TextIOWrapper(file, encoding="utf-16", newline="\n") as text:
        for line in text:
            # A lone surrogate can't come out of the decoder, so this can't fail.
            yield line.encode()


def decode_line(
    raw: bytes, path: object, number: int, encoding: str | None = None, errors: str = "strict"
) -> str:
    r"""Decode one line of bytes, its ``\n`` or ``\r\n`` removed.

    Args:
        raw: the line.
        path: for the message.
        number: of the line, for the message.
        encoding: as in `read_lines`.
        errors: likewise.

    Raises:
        NmtError: the bytes are not in the encoding; names file, line and, for Chinese
            text in another one, which it looks like.
    """
    if raw.endswith(b"\n"):
        raw = raw[:-1]
    if raw.endswith(b"\r"):
        raw = raw[:-1]
    codec = encoding if encoding in ("gb18030", "big5") else "utf-8"
    try:
        return raw.decode(codec, errors)
    except UnicodeDecodeError as error:
        looks_like = _guess_encoding(raw, codec)
        reads = f"; it reads as {looks_like[0]}: {looks_like[1]}" if looks_like else ""
        name = looks_like[0] if looks_like else "GB18030"
        convert = f"iconv -f {name} -t UTF-8 IN > OUT"
        raise NmtError(
            f"{where(path, number)}: not valid {codec.upper()} (byte {error.start + 1} of the "
            f"line is 0x{raw[error.start]:02x}){reads}",
            f"convert the file first, for example: {convert}"
            if encoding is None
            else f"set encoding: {name.lower()} under this source, or convert the file: {convert}",
        ) from error


# The commonest characters of Chinese text in either script: what tells one encoding's
# reading from another's, since GB18030 makes characters of almost any bytes.
_COMMON = frozenset(
    "的一是不了人我在有他这这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家"
    "学对可她里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经"
    "這來國個說們為時會過學對裡後麼無開發經還當樣點們沒現動問進"
)


def _guess_encoding(raw: bytes, codec: str) -> tuple[str, str] | None:
    """The encoding these bytes are most likely in, and how they read in it."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16", raw.decode("utf-16", "replace")[:20].replace("\ufffd", "")
    best: tuple[int, str, str] = (0, "", "")
    for name in ("GB18030", "Big5", "UTF-8"):
        if name.lower() == codec:
            continue
        try:
            text = raw.decode(name)
        except UnicodeDecodeError:
            continue
        best = max(best, (sum(c in _COMMON for c in text), name, text[:20]))
    return (best[1], best[2]) if best[0] else None


@functools.lru_cache(maxsize=1)
def _simplifier() -> Callable[[str], str]:
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert


def normalise(text: str, *, simplify: bool) -> str:
    """Bring text to the form the model sees: the same for every command.

    Unicode NFKC (full-width letters, digits and punctuation become half-width),
    invisible control characters removed, white space runs become one space, ends
    stripped. References used for scoring never pass through here.

    Args:
        text: one line.
        simplify: also convert Traditional characters to Simplified with OpenCC
            (``t2s``); meant for the Chinese side only.
    """
    text = unicodedata.normalize("NFKC", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text)).strip()
    return _simplifier()(text) if simplify else text


def has_han(text: str) -> bool:
    """Whether a Chinese character is in it."""
    return _HAN.search(text) is not None


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
def compressing(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Compress what is written to `file`, if the name `path` asks for it.

    Raises:
        NmtError: the package for ``.zst`` is missing.
    """
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        yield file
    else:
        with writer(file) as compressed:
            yield compressed


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that `path` holds either its old bytes or all of the new ones.

    Written beside, fsynced, renamed. On any error the half-written file is
    removed and the old one stays. A link keeps pointing where it did; what is no file, a pipe or
    a device, is written to as it is.

    Raises:
        NmtError: the disk is full or the folder may not be written.
    """
    refuse_folder(path)
    with writing_to(path):
        if str(path.parent) in _DESCRIPTORS or (path.exists() and not path.is_file()):
            with path.open("ab") as file:
                yield file
            return
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name may have 255 bytes, and a few are added.
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(_mode(path))
            Path(name).replace(path)
            _sync(path.parent)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of these bytes, as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def refuse_folder(path: Path | None) -> None:
    """Refuse a file to be written whose name is a folder's, before any work is done for it.

    Raises:
        NmtError: it is one.
    """
    with contextlib.suppress(OSError):  # what may not be looked at says so when it is written
        if path is not None and path.is_dir():
            raise NmtError(f"{path}: is a directory, a file is to be written", f"{path / 'NAME'}")


def is_pipe(path: Path) -> bool:
    """Whether it is a pipe, which can be read only once."""
    with contextlib.suppress(OSError):
        return path.is_fifo()
    return False


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both are there and are one file, by whatever names."""
    with contextlib.suppress(OSError):
        return one.is_file() and one.samefile(other)
    return False


@contextlib.contextmanager
def replacing_folder(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """Fill a folder so that it appears whole or not at all, replacing an older one.

    Yields a scratch folder beside `folder`; on success its files are fsynced and
    it takes the name, on any error it is removed and the old folder stays. What a kill left
    of an earlier one is removed first.

    Args:
        folder: its name.
        new: there is nothing to replace, and nothing that appears meanwhile is.

    Raises:
        NmtError: the disk is full, the parent may not be written, or `folder` is a mount point.
    """
    with writing_to(folder):
        folder = Path(os.path.realpath(folder))  # a link keeps pointing where it did
        if folder.is_mount():
            raise NmtError(
                f"{folder}: something is mounted there, so that it can't be replaced",
                "name a folder inside it",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(folder)
        scratch = Path(tempfile.mkdtemp(_UNFINISHED, f".{folder.name}.", folder.parent))
        held = _lock(scratch)
        try:
            yield scratch
            for path in (*scratch.rglob("*"), scratch):
                _sync(path)  # a folder's own entries too, or its files may be gone after a crash
            scratch.chmod(0o777 & ~_umask())
            if folder.exists() and not new:
                # A folder can't be renamed over a full one: step aside, then swap in.
                aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
                folder.rename(aside / "old")
                try:
                    scratch.rename(folder)
                except BaseException:
                    (aside / "old").rename(folder)
                    raise
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
            else:
                scratch.rename(folder)
            _sync(folder.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            if held is not None:
                os.close(held)


def _remove_left_behind(folder: Path) -> None:
    """Remove scratch folders of `replacing_folder` that no process fills any more."""
    for scratch in folder.parent.glob(f".{glob.escape(folder.name)}.*{_UNFINISHED}"):
        with contextlib.suppress(OSError):  # somebody else's, or gone meanwhile
            if time.time() - scratch.stat().st_mtime < _JUST_MADE:
                continue  # perhaps not locked yet
            held = _lock(scratch)
            if held is not None:
                shutil.rmtree(scratch, ignore_errors=True)
                os.close(held)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed or the process ends; None if it can't be."""
    import fcntl  # not on Windows, where folders are read but not made

    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the file system knows no locks
        os.close(held)
        return None
    return held


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
        if error.errno in _REFUSED:
            raise NmtError(f"{path}: cannot be written ({error.strerror})") from error
        raise


def _mode(path: Path) -> int:
    """Who may read and write a file: as before if it is there, else as with any new one."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode & 0o777
    return 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder; not all systems know the latter."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)
