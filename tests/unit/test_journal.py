"""The journal of a run: records, truncated lines, full disks."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch

from nmt.errors import NmtError
from nmt.run.journal import JOURNAL, Journal, environment, read_journal
from nmt.train.curves import NAME, draw_curves


def test_records_are_read_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write("start", update=0)
    journal.write("log", update=50, loss=2.5, text="我")
    assert read_journal(tmp_path) == [
        {"kind": "start", "update": 0},
        {"kind": "log", "update": 50, "loss": 2.5, "text": "我"},
    ]


def test_each_record_is_one_line_of_readable_text(tmp_path: Path) -> None:
    Journal(tmp_path, 0).write("log", update=1, text="一\n二\u2028三")
    lines = (tmp_path / JOURNAL).read_text(encoding="utf-8").split("\n")
    assert len(lines) == 2
    assert lines[1] == ""
    assert "一" in lines[0]


def test_resuming_removes_records_of_later_updates(tmp_path: Path) -> None:
    before = Journal(tmp_path, 0)
    for update in (0, 50, 100, 150):
        before.write("log", update=update)
    Journal(tmp_path, 100).write("start", update=100)
    assert [r["update"] for r in read_journal(tmp_path)] == [0, 50, 100, 100]


def test_a_truncated_line_is_skipped_and_removed(tmp_path: Path) -> None:
    Journal(tmp_path, 0).write("log", update=50)
    with (tmp_path / JOURNAL).open("a", encoding="utf-8") as file:
        file.write('{"kind": "log", "upd')
    assert [r["update"] for r in read_journal(tmp_path)] == [50]
    Journal(tmp_path, 50).write("log", update=100)
    text = (tmp_path / JOURNAL).read_text(encoding="utf-8")
    assert [json.loads(line)["update"] for line in text.splitlines()] == [50, 100]


@pytest.mark.parametrize("cut", range(2, 60, 7))
def test_a_line_truncated_inside_a_character_is_skipped(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, 0)
    journal.write("log", update=50)
    journal.write("validation", update=60, text="我爱中国我爱中国")
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[:-cut])
    assert [r["update"] for r in read_journal(tmp_path)] == [50]
    Journal(tmp_path, 50).write("log", update=100)
    assert [r["update"] for r in read_journal(tmp_path)] == [50, 100]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path, 0)
    journal.write("log", update=50)
    size = (tmp_path / JOURNAL).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 61, before[1]))  # inside a character
    try:
        journal.write("validation", update=60, text="我爱中国" * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "journal record dropped" in capsys.readouterr().err
    assert (tmp_path / JOURNAL).stat().st_size == size
    journal.write("log", update=100)
    assert [r["update"] for r in read_journal(tmp_path)] == [50, 100]


def test_a_missing_journal_has_no_records(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == []


def test_the_environment_has_versions_and_hardware() -> None:
    record = environment(torch.device("cpu"))
    assert record["torch"] == torch.__version__
    assert record["device"] == "cpu"
    assert {"program", "git", "python", "device_name", "threads"} <= set(record)


def test_a_journal_that_is_a_link_out_of_the_run_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "outside.txt"
    target.write_text("unchanged", encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    (run / JOURNAL).symlink_to(target)
    with pytest.raises(NmtError, match="a symbolic link leads out of"):
        Journal(run, 0)
    assert target.read_text(encoding="utf-8") == "unchanged"


def test_curves_are_not_drawn_through_a_link_out_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / "outside.txt"
    target.write_text("unchanged", encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    journal = Journal(run, 0)
    for update in (1, 2):
        values = dict.fromkeys(("loss", "gradient_norm", "learning_rate", "padding", "epoch"), 1.0)
        journal.write("log", update, tokens_per_second=1, tokens=1, seconds=1.0, **values)
        journal.write("validation", update, dev_bleu=1.0, dev_chrf=1.0, epoch=0.1, seconds=1.0)
    (run / NAME).symlink_to(target)
    draw_curves(run)
    assert target.read_text(encoding="utf-8") == "unchanged"
    (run / NAME).unlink()
    draw_curves(run)
    assert (run / NAME).is_file()
