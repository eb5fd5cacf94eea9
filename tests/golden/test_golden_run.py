"""A fixed tiny run: its loss curve and its translations.

A refactor leaves both unchanged. After an intended change of behaviour, update the files with

    python tests/golden/test_golden_run.py

and say in the commit why they changed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers import command, toy

FOLDER = Path(__file__).parent
LOSSES = FOLDER / "losses.json"
TRANSLATIONS = FOLDER / "translations.json"
UPDATES = 20
# Processors round differently: float32, 20 updates, nats per token. The curve falls by more
# than one nat, so a changed gradient or a changed batch exceeds this by far.
TOLERANCE = 2e-3

MODELS = {
    "attention": {
        "attention_query": "state+word", "source_bridge": True, "layer_norm": True,
    },
    "fixed-context": {"attention": "none"},
}  # fmt: skip
LINES = ("我今天吃苹果。", "他们晚上看见猫。", "你明天喜欢花", "我们找书。他们买水。")


def golden_run(folder: Path, model: str) -> tuple[list[float], list[str]]:
    """Train 20 updates and return the loss of each; train on and translate `LINES`."""
    guided = 0.1 if model == "attention" else 0.0
    config = toy.write_config(
        folder,
        model=MODELS[model],
        train={
            "precision": "float32", "ema": 0.9, "guided_alignment": guided, "epochs": 40,
            "validate_every": 0.02, "max_updates": UPDATES, "patience": 1000,
        },
    )  # fmt: skip
    assert command.nmt("prepare", "--config", config).code == 0
    done = command.nmt("train", "--config", config, "--device", "cpu")
    assert done.code == 0, done.err
    journal = (folder / "run" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in journal]
    losses = [record["loss"] for record in records if record["kind"] == "log"]
    longer = ("--set", "train.max_updates=300", "--set", "train.validate_every=20")
    done = command.nmt("train", "--config", config, "--device", "cpu", *longer)
    assert done.code == 0, done.err
    done = command.nmt("translate", "--model", folder / "run", "--beam", 4, *LINES)
    assert done.code == 0, done.err
    return losses, done.out.splitlines()


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_translations_of_a_fixed_run_are_unchanged(tmp_path: Path, model: str) -> None:
    losses, translations = golden_run(tmp_path, model)
    expected = json.loads(LOSSES.read_text(encoding="utf-8"))[model]
    assert len(losses) == UPDATES
    assert losses[0] - losses[-1] > 0.5
    assert losses == pytest.approx(expected, abs=TOLERANCE)
    assert translations == json.loads(TRANSLATIONS.read_text(encoding="utf-8"))[model]


def update() -> None:
    """Regenerate both golden files."""
    losses, translations = {}, {}
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            losses[model], translations[model] = golden_run(Path(folder), model)
    for path, content in ((LOSSES, losses), (TRANSLATIONS, translations)):
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parents[1]))
    update()
