"""The proof: killed with SIGKILL at 20 random moments, a training ends with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nmt.run.journal import read_journal
from tests.helpers.command import nmt
from tests.helpers.toy import write_config
from tests.helpers.training import fingerprint

KILLS = 20
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def killing(config: Path, run: Path, kills: int, seed: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killing", *map(str, (config, run, kills, seed))],
        capture_output=True, text=True, cwd=ROOT, timeout=600, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_killed_at_20_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    keys = {"epochs": 14, "ema": 0.99, "keep_best": 2, "patience": 100}
    config = write_config(tmp_path, train=keys)
    assert nmt("prepare", "--config", config).code == 0
    undisturbed = killing(config, tmp_path / "undisturbed", 0, 0)
    assert undisturbed == {"killed": [], "code": 0}
    disturbed = killing(config, tmp_path / "disturbed", KILLS, seed=1)
    assert disturbed["code"] == 0, (tmp_path / "disturbed.log").read_text()
    killed = disturbed["killed"]
    assert isinstance(killed, list)
    assert len(killed) == KILLS
    places = {kill["where"] for kill in killed}
    assert "update" in places
    assert len(places) >= 5  # so several different steps of writing
    expected = fingerprint(tmp_path / "undisturbed")
    assert fingerprint(tmp_path / "disturbed") == expected
    leftovers = [p.name for p in (tmp_path / "disturbed").rglob(".*") if p.name != ".lock"]
    assert leftovers == []
    validations = [
        [
            (r["update"], r["dev_bleu"], r["samples"])
            for r in read_journal(tmp_path / name)
            if r["kind"] == "validation"
        ]
        for name in ("undisturbed", "disturbed")
    ]
    assert validations[0] == validations[1]
