"""Temporary files and folders beside the file or folder that they will replace.

The name is `.NAME.RANDOM.part`. A temporary is locked while it is being written, so that one
left behind by a killed process can be told apart and removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from pathlib import Path

_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(part|old)", re.DOTALL)
_MAX_PREFIX = 40  # characters of NAME; the whole name is limited to 255 bytes
_MIN_AGE = 60.0  # seconds; a younger temporary may not be locked yet


def remove_leftovers(folder: Path) -> None:
    """Remove temporaries in `folder` that killed processes left behind."""
    remove_unlocked(folder, None, 0.0)


def temporary_path(path: Path, suffix: str) -> Path:
    """Return a new name beside `path`; `suffix` is ``part`` or, for replaced content, ``old``."""
    return path.with_name(f".{path.name[:_MAX_PREFIX]}.{secrets.token_hex(4)}.{suffix}")


def temporaries(folder: Path, name: str | None) -> list[Path]:
    """List temporaries in `folder`: those of the file or folder `name`, or all."""
    prefix = None if name is None else name[:_MAX_PREFIX]
    matches = ((path, _TEMPORARY.fullmatch(path.name)) for path in folder.iterdir())
    return [path for path, match in matches if match and prefix in (None, match[1])]


def remove_unlocked(folder: Path, name: str | None, min_age: float = _MIN_AGE) -> None:
    """Remove temporaries that no process is writing; see `temporaries`."""
    with contextlib.suppress(OSError):  # not readable, or removed by another process
        for path in temporaries(folder, name):
            if time.time() - path.lstat().st_mtime >= min_age and is_unlocked(path):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def is_unlocked(path: Path) -> bool:
    """Whether no process holds the lock of `path`."""
    lock = lock_path(path)
    if lock is None:
        return False
    os.close(lock)
    return True


def lock_path(path: Path) -> int | None:
    """Lock a file or folder until the returned descriptor is closed; None if that fails."""
    if os.name == "nt":
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    if not try_lock(descriptor):
        os.close(descriptor)
        return None
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Lock an open file; return False if that fails."""
    if os.name == "nt":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked by another process, or the file system has no locks
        return False
    return True
