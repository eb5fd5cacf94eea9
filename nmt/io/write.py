"""Atomic files and folders: written as a whole or not at all."""

from __future__ import annotations

import bz2
import contextlib
import errno
import glob
import gzip
import hashlib
import lzma
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError
from nmt.io.read import open_zstd
from nmt.log import discard_output

WriteLine = Callable[[str], object]
Flush = Callable[[], object]

_UNFINISHED = ".part"
_JUST_MADE = 60.0  # seconds
_DESCRIPTORS = ("/dev", "/dev/fd", "/proc/self/fd")  # names in them are of what is open already
_REFUSED = (
    errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENOTEMPTY, errno.ENAMETOOLONG,
)  # fmt: skip

_WRITERS: dict[str, Callable[[IO[bytes]], Any]] = {
    # Without name and time in it: the same text has the same bytes.
    ".gz": lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0),
    ".bz2": lambda file: bz2.BZ2File(file, "wb"),
    ".xz": lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115 (closed by `compressing`)
    ".zst": lambda file: open_zstd(file, "wb"),
}


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


@contextlib.contextmanager
def _stdout_errors() -> Iterator[None]:
    """Context manager that turns a failed write to stdout into an error and abandons stdout."""
    try:
        yield
    except OSError as error:
        discard_output(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise NmtError(
            f"standard output: cannot be written ({error.strerror}); what came before is there",
            "--output FILE writes all lines or none",
        ) from error


@contextlib.contextmanager
def writing_lines(path: Path | None) -> Iterator[tuple[WriteLine, Flush]]:
    """Context manager for writing lines to a file, whole or not at all, or to stdout.

    Yields:
        A function that writes one line, and a function that flushes.
    """
    if path is None:
        if sys.stdout is None:
            raise NmtError("standard output is closed", "name a file with --output")
        out = sys.stdout.buffer

        def write(line: str) -> None:
            with _stdout_errors():
                out.write(line.encode() + b"\n")

        def flush() -> None:
            with _stdout_errors():
                out.flush()

        with contextlib.suppress(BrokenPipeError):  # the reader has closed the pipe: no error
            yield write, flush
            flush()
    else:
        with replacing(path) as whole, compressing(path, whole) as file:
            yield lambda line: file.write(line.encode() + b"\n"), lambda: None


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


def refuse_overwriting(written: Sequence[Path], read: Sequence[Path]) -> None:
    """Refuse outputs that would take the place of what is read, or of one another.

    Raises:
        NmtError: naming the first.
    """
    for path in written:
        if any(is_same_file(path, other) for other in read):
            raise NmtError(f"{path}: is what is read, and would be written over", "another name")
    if len(set(map(os.path.realpath, written))) < len(written):
        raise NmtError("two outputs have the same name", "give each its own")


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
