"""Atomic writing: files and folders appear whole or not at all.

New content is written to a temporary file or folder `.NAME.RANDOM.part` beside the target,
fsynced and renamed; see `nmt.io.temporary`.
"""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nmt.errors import NmtError
from nmt.io.read import open_zstd
from nmt.io.temporary import (
    is_unlocked,
    lock_path,
    remove_unlocked,
    temporaries,
    temporary_path,
    try_lock,
)
from nmt.log import discard_output

WriteLine = Callable[[str], object]
Flush = Callable[[], object]

_DESCRIPTORS = ("/dev", "/dev/fd", "/proc/self/fd")  # their entries name open descriptors
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_AT_FDCWD = -100

_COMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    # No name and no time in the header: equal text gives equal bytes.
    ".gz": lambda file: gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0),
    ".bz2": lambda file: bz2.BZ2File(file, "wb"),
    ".xz": lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115 (closed by `compressing`)
    ".zst": lambda file: open_zstd(file, "wb"),
}


def file_sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def compressing(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Context manager that compresses what is written to `file`, by the suffix of `path`.

    Raises:
        NmtError: the package for ``.zst`` is missing.
    """
    compressor = _COMPRESSORS.get(path.suffix)
    if compressor is None:
        yield file
    else:
        with compressor(file) as compressed:
            yield compressed


class _OutputFile(io.FileIO):
    """A raw file whose write errors are `NmtError`s that contain the name of the target."""

    def __init__(self, file: str | Path | int, mode: str, target: Path) -> None:
        super().__init__(file, mode)
        self._target = target

    def write(self, data: Any) -> int:
        with writing_to(self._target):
            return super().write(data) or 0


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Context manager for writing a file that has either its old content or all of the new.

    On an error the temporary file is removed and the old file stays. A symbolic link keeps its
    target. A pipe or a device is written to directly.

    Raises:
        NmtError: the folder does not exist or cannot be written, or the disk is full.
    """
    check_output_file(path)
    with writing_to(path):
        is_special = str(path.parent) in _DESCRIPTORS or (path.exists() and not path.is_file())
        raw = _OutputFile(path, "ab", path) if is_special else None
    if raw is not None:
        with io.BufferedWriter(raw) as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    with writing_to(path):
        remove_unlocked(target.parent, target.name)
        temporary = temporary_path(target, "part")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with io.BufferedWriter(_OutputFile(descriptor, "wb", path)) as file:
            with writing_to(path):
                try_lock(descriptor)
                if target.exists() and hasattr(os, "fchmod"):
                    os.fchmod(descriptor, target.stat().st_mode & 0o777)
            yield file
            file.flush()
            with writing_to(path):
                os.fsync(descriptor)
        with writing_to(path):
            temporary.replace(target)
            _sync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to a file; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    r"""Write text to a file; see `replacing`.

    Bytes of a file name that is not UTF-8 are written as ``\udcXX``, which is valid in JSON.
    """
    write_whole(path, text.encode("utf-8", "backslashreplace"))


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
            f"standard output: cannot be written ({error.strerror}); earlier lines were written",
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


def check_output_file(path: Path | None) -> None:
    """Check that a file can be created at `path`, before any work is done for it.

    Raises:
        NmtError: `path` is a directory, or its folder does not exist.
    """
    if path is None:
        return
    with contextlib.suppress(OSError):  # reported when the file is written
        if path.is_dir():
            raise NmtError(f"{path}: is a directory, not a file", f"{path / 'NAME'}")
        folder = Path(os.path.realpath(path)).parent
        if not folder.exists():
            raise NmtError(f"{path}: the folder {folder} does not exist", f"mkdir -p {folder}")


def check_inside(path: Path, folder: Path) -> None:
    """Check that `path`, with symbolic links resolved, is inside `folder`.

    Raises:
        NmtError: a symbolic link leads out of `folder`.
    """
    resolved = Path(os.path.realpath(path))
    if not resolved.is_relative_to(os.path.realpath(folder)):
        raise NmtError(
            f"{path}: a symbolic link leads out of {folder}, to {resolved}; nothing was written",
            "remove the link",
        )


def is_pipe(path: Path) -> bool:
    """Whether `path` is a named pipe, which can be read only once."""
    with contextlib.suppress(OSError):
        return path.is_fifo()
    return False


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both paths exist and name the same file."""
    with contextlib.suppress(OSError):
        return first.is_file() and first.samefile(second)
    return False


def refuse_overwriting(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Check that no output is an input or another output.

    Raises:
        NmtError: with the first such output.
    """
    for path in outputs:
        if any(is_same_file(path, source) for source in inputs):
            raise NmtError(f"{path}: output would overwrite an input", "choose another path")
    if len(set(map(os.path.realpath, outputs))) < len(outputs):
        raise NmtError("two outputs have the same path", "choose different paths")


@contextlib.contextmanager
def replacing_folder(folder: Path, *, new: bool = False) -> Iterator[Path]:
    """Context manager for filling a folder that appears whole or not at all.

    Yields a temporary folder. On success its files are fsynced and it takes the name `folder`,
    atomically where the system can exchange two names. On an error it is removed and the old
    folder stays. Temporaries of killed processes are removed first.

    Args:
        folder: name of the folder. Missing parents are created.
        new: do not replace an existing folder.

    Raises:
        NmtError: the disk is full, the parent cannot be written, or `folder` is a mount point.
    """
    name = folder
    folder = Path(os.path.realpath(folder))  # a symbolic link keeps its target
    with writing_to(name):
        if folder.is_mount():
            raise NmtError(
                f"{name}: is a mount point and cannot be replaced", "name a folder inside it"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(folder)
        remove_unlocked(folder.parent, folder.name)
        scratch = temporary_path(folder, "part")
        scratch.mkdir()
        lock = lock_path(scratch)
    try:
        with _writing_inside(name, folder.parent):
            yield scratch
            for path in (*scratch.rglob("*"), scratch):
                _sync(path)  # including folders: their entries may be lost in a crash
            _move_into_place(scratch, folder, new=new)
            _sync(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # after an exchange: the old content
        if lock is not None:
            os.close(lock)


def _move_into_place(scratch: Path, folder: Path, *, new: bool) -> None:
    """Rename `scratch` to `folder`; an old folder gets the name `scratch` or is removed."""
    if new or not folder.exists():
        scratch.rename(folder)
    elif not _exchange(scratch, folder):
        # Not atomic: `recover_folder` undoes the first rename if the process is killed here.
        old = temporary_path(folder, "old")
        folder.rename(old)
        try:
            scratch.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names atomically; return False if the system or file system cannot."""
    names = os.fsencode(first), os.fsencode(second)
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "renameat2"):
        result = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    elif hasattr(libc, "renamex_np"):
        result = libc.renamex_np(*names, _EXCHANGE)
    else:
        return False
    return int(result) == 0


def recover_folder(folder: Path) -> None:
    """Restore the old content of a folder whose replacement was killed between two renames."""
    if folder.exists():
        return
    with contextlib.suppress(OSError):
        paths = temporaries(folder.parent, folder.name)
        if all(is_unlocked(path) for path in paths if path.suffix == ".part"):
            for path in paths:
                if path.suffix == ".old":
                    path.rename(folder)
                    return


def remove_folder(folder: Path) -> None:
    """Remove a folder. Other processes see all of it or nothing."""
    hidden = temporary_path(folder, "part")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Context manager that turns every `OSError` into an `NmtError` about `path`."""
    try:
        yield
    except OSError as error:
        raise _write_error(path, error) from error


@contextlib.contextmanager
def _writing_inside(path: Path, folder: Path) -> Iterator[None]:
    """As `writing_to`, but let errors of other files and of pipes pass."""
    try:
        yield
    except (BrokenPipeError, ConnectionError, ChildProcessError):
        raise
    except OSError as error:
        name = error.filename
        if isinstance(name, (str, bytes, os.PathLike)):
            resolved = Path(os.path.realpath(os.fsdecode(name)))
            if not resolved.is_relative_to(folder):
                raise
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> NmtError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NmtError(
            f"{path}: the disk is full; nothing was left half-written",
            "free some space and run the same command again",
        )
    if error.errno == errno.EFBIG:
        return NmtError(
            f"{path}: larger than the file size limit; nothing was left half-written",
            "raise the limit (ulimit -f) and run the same command again",
        )
    return NmtError(f"{path}: cannot be written ({error.strerror or error})")


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems cannot flush folders
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
