"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import stat
import sys
from pathlib import Path

import pytest

import nmt.io.write
from nmt.errors import NmtError
from nmt.io.temporary import lock_path, remove_leftovers
from nmt.io.write import (
    check_inside,
    recover_folder,
    replacing,
    replacing_folder,
    write_whole,
    writing_to,
)


def test_replacing_keeps_the_old_bytes_on_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new" * (1 // 0))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_replacing_keeps_permissions(tmp_path: Path) -> None:
    path = tmp_path / ("长" * 82 + ".txt")  # 250 bytes; a name may have 255
    write_whole(path, b"new")
    path.chmod(0o600)
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o600


def test_replacing_a_folder_is_all_or_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for text in ("first", "second"):
        with replacing_folder(folder) as scratch:
            (scratch / "f").write_text(text, encoding="utf-8")
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as scratch:
        (scratch / "f").write_text("third" * (1 // 0), encoding="utf-8")
    assert (folder / "f").read_text(encoding="utf-8") == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [".out.0000000a.part", ".out.0000000b.part", ".out.0000000c.part", ".out.original"]
    killed, locked, recent, unrelated = (tmp_path / name for name in names)
    for folder in (killed, locked, recent, unrelated):
        folder.mkdir()
        (folder / "f").write_bytes(b"x")
    for folder in (killed, locked, unrelated):
        os.utime(folder, (0, 0))
    lock = lock_path(locked)
    assert lock is not None
    with replacing_folder(tmp_path / "out") as scratch:
        assert lock_path(scratch) is None
        assert set(tmp_path.iterdir()) == {locked, recent, unrelated, scratch}
    os.close(lock)


def test_remove_leftovers_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / ".out.0000000a.part").mkdir()
    (tmp_path / ".out.txt.0000000b.part").write_bytes(b"x")
    kept = [tmp_path / ".mine", tmp_path / ".mine.part", tmp_path / "out.0000000a.part"]
    for path in kept:
        path.write_bytes(b"x")
    with replacing(tmp_path / "out.txt"):
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == len(kept) + 1  # the temporary being written
    assert set(tmp_path.iterdir()) == {*kept, tmp_path / "out.txt"}


def test_a_leftover_beside_an_output_is_removed_by_the_next_run(tmp_path: Path) -> None:
    leftover = tmp_path / ".f.0000000a.part"
    leftover.write_bytes(b"x")
    os.utime(leftover, (0, 0))
    write_whole(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_is_replaced_with_and_without_an_atomic_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    if not atomic:
        monkeypatch.setattr(nmt.io.write, "_exchange", lambda *_: False)
    elif sys.platform == "linux":
        monkeypatch.setattr(Path, "rename", None)  # not needed
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"x")
    with replacing_folder(folder) as scratch:
        (scratch / "new").write_bytes(b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


def test_a_replacement_killed_between_two_renames_is_recovered(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"x")
    child = os.fork()
    if child == 0:
        rename = Path.rename

        def rename_once(self: Path, target: Path) -> Path:
            rename(self, target)
            os._exit(0)  # as if killed

        nmt.io.write._exchange = lambda *_: False
        Path.rename = rename_once  # type: ignore[method-assign]
        with replacing_folder(folder) as scratch:
            (scratch / "new").write_bytes(b"x")
    os.waitpid(child, 0)
    assert not folder.exists()
    recover_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["old"]
    recover_folder(folder)  # nothing to do
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_missing_folder_is_not_created_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "f"
    with pytest.raises(NmtError) as caught:
        write_whole(path, b"x")
    assert caught.value.message == f"{path}: the folder {path.parent} does not exist"
    assert caught.value.hint == f"mkdir -p {path.parent}"
    assert not path.parent.exists()


def test_a_symbolic_link_out_of_a_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "link").symlink_to(tmp_path / "outside")
    (run / "inner").symlink_to(run / "f")
    check_inside(run / "f", run)
    check_inside(run / "inner", run)
    with pytest.raises(NmtError, match="a symbolic link leads out of"):
        check_inside(run / "link", run)


def test_the_file_size_limit(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(NmtError) as caught:
            write_whole(tmp_path / "f", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.message.startswith(f"{tmp_path / 'f'}: larger than the file size limit")
    assert list(tmp_path.iterdir()) == []


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe")
    write_whole(path, b"x")
    with replacing_folder(tmp_path / os.fsdecode(b"\xfa")) as scratch:
        (scratch / "f").write_bytes(b"x")
    assert path.read_bytes() == b"x"
    assert len(list(tmp_path.iterdir())) == 2


def test_file_systems_that_cannot_sync_folders(
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


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; nothing was left half-written"),
        (errno.EFBIG, "larger than the file size limit; nothing was left half-written"),
        (errno.EACCES, "cannot be written (Permission denied)"),
        (errno.EIO, "cannot be written (Input/output error)"),
    ],
)
def test_every_failed_write_is_an_error_with_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    path = tmp_path / "f"
    with pytest.raises(NmtError) as caught, writing_to(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.message == f"{path}: {message}"
    with pytest.raises(NmtError) as caught, replacing_folder(path):
        raise OSError(number, os.strerror(number))
    assert caught.value.message == f"{path}: {message}"

    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(NmtError) as caught:
        write_whole(path, b"x")
    assert caught.value.message == f"{path}: {message}"
    assert list(tmp_path.iterdir()) == []


def test_errors_that_are_not_about_the_output_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "f"):
        (tmp_path / "absent").read_bytes()
    with pytest.raises(FileNotFoundError), replacing_folder(tmp_path / "out"):
        Path("/absent/file").read_bytes()
    with pytest.raises(BrokenPipeError), replacing_folder(tmp_path / "out"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert list(tmp_path.iterdir()) == []
