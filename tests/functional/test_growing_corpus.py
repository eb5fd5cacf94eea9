"""A corpus that grows every week: held-out sets stay, and leaked scores are noticed."""

from __future__ import annotations

from pathlib import Path

from nmt.data.training_keys import count_trained_on
from tests.helpers.preparing import Run, sentences, write_config, write_tsv


def held_out(folder: str) -> dict[str, set[str]]:
    return {
        name: set(Path(folder, f"{name}.src.txt").read_text(encoding="utf-8").splitlines())
        for name in ("dev", "test")
    }


def test_held_out_sentences_stay_through_four_weekly_additions(run: Run) -> None:
    pairs = sentences()
    write_config("{source: tsv, path: a.tsv}")
    earlier: set[str] = set()
    sets: dict[str, set[str]] = {}
    for week, size in enumerate((200, 220, 240, 260, 280)):
        write_tsv(Path("a.tsv"), pairs[:size])
        result = run("prepare", "--config", "c.yaml")
        assert result.code == 0, result.err
        now = held_out("data/t")
        assert (len(now["dev"]), len(now["test"])) == (10, 20)
        if week:
            assert now == sets
        sets = now
        earlier |= now["test"]
        assert count_trained_on(Path("data/t"), earlier, simplify=True) == 0


def test_training_sentences_are_recognised(run: Run) -> None:
    write_tsv(Path("a.tsv"), sentences())
    write_config("{source: tsv, path: a.tsv}")
    assert run("prepare", "--config", "c.yaml").code == 0
    held = set().union(*held_out("data/t").values())
    sources = [zh for zh, _ in sentences()]
    assert count_trained_on(Path("data/t"), sources, simplify=True) == len(sources) - len(held)
    assert count_trained_on(Path("data/t"), ["从没见过。"], simplify=True) == 0
