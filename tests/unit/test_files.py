"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

import nmt.io.write
from nmt.errors import NmtError
from nmt.io.write import replacing, replacing_folder, write_whole, writing_to


def test_replacing_keeps_the_old_bytes_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_replacing_keeps_who_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / ("长" * 82 + ".txt")  # 250 bytes; a name may have 255
    write_whole(path, b"new")
    path.chmod(0o600)
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o600


def test_replacing_a_folder_is_all_or_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for text in ("one", "two"):
        with replacing_folder(folder) as scratch:
            (scratch / "f").write_text(text, encoding="utf-8")
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as scratch:
        (scratch / "f").write_text("three" * (1 // 0), encoding="utf-8")
    assert (folder / "f").read_text(encoding="utf-8") == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_a_kill_left_of_a_folder_is_removed_and_nothing_else(tmp_path: Path) -> None:
    killed, busy, new, own = (
        tmp_path / name for name in (".out.a.part", ".out.b.part", ".out.c.part", ".out.original")
    )
    for folder in (killed, busy, new, own):
        folder.mkdir()
        (folder / "f").write_bytes(b"x")
    for folder in (killed, busy, own):
        os.utime(folder, (0, 0))
    at_work = nmt.io.write._lock(busy)
    assert at_work is not None
    with replacing_folder(tmp_path / "out") as scratch:
        assert nmt.io.write._lock(scratch) is None
        there = {path.name for path in tmp_path.iterdir()}
    assert there == {busy.name, new.name, own.name, scratch.name}
    os.close(at_work)


def test_a_file_system_that_syncs_no_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(handle: int) -> None:
        synced.append(handle)
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(tmp_path / "f") as file:
        file.write(b"x")
    assert len(synced) == 2
    assert (tmp_path / "f").read_bytes() == b"x"


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(NmtError) as caught, writing_to(tmp_path / "f"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"{tmp_path / 'f'}: the disk is full; nothing was left " + (
        "half-written"
    )


def test_another_os_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="strange"), writing_to(tmp_path / "f"):
        raise OSError(errno.EIO, "strange")
