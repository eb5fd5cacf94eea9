"""A toy corpus and a configuration of a small network, for tests that train in seconds."""

import itertools
import os
from pathlib import Path

import numpy as np
import yaml

from nmt.data.packed import PackedWriter
from nmt.run.directory import RunInfo
from nmt.run.records import FileRecord, dump_record, load_record

# Small networks are slower on several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_SUBJECTS = {"我": "I", "你": "you", "他们": "they", "我们": "we"}
_TIMES = {"今天": "today", "明天": "tomorrow", "晚上": "at night"}
_VERBS = {"吃": "eat", "买": "buy", "喜欢": "like", "看见": "see", "找": "look for"}
_OBJECTS = {"苹果": "apples", "书": "books", "猫": "cats", "水": "water", "花": "flowers"}


def pairs() -> list[tuple[str, str]]:
    """Return all 300 sentence pairs of the toy language."""
    return [
        (
            f"{subject}{time}{verb}{noun}。",
            f"{_SUBJECTS[subject]} {_VERBS[verb]} {_OBJECTS[noun]} {_TIMES[time]}.",
        )
        for subject, time, verb, noun in itertools.product(_SUBJECTS, _TIMES, _VERBS, _OBJECTS)
    ]


def add(writer: PackedWriter, *sides: list[list[int]]) -> None:
    """Append sentences, given as ids by side, to a packed corpus."""
    ids = [np.array(list(itertools.chain.from_iterable(side)), np.int64) for side in sides]
    writer.add(tuple(ids), tuple(np.array([*map(len, side)], np.int64) for side in sides))


def write_config(folder: Path, **sections: dict[str, object]) -> Path:
    """Write the toy text and a configuration; `sections` override its keys."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{src}\t{trg}\n" for src, trg in pairs())
    (folder / "toy.tsv").write_text(lines, encoding="utf-8")
    tree = {
        "run": str(folder / "run"),
        "data": {
            "dir": str(folder / "corpus"),
            "sources": [{"source": "tsv", "path": str(folder / "toy.tsv")}],
            "dev": 16, "test": 16, "src_vocab": 330, "trg_vocab": 330,
        },
        "model": {
            "embedding_dim": 16, "encoder_hidden": 16, "decoder_hidden": 32, "attention_hidden": 16,
            "dropout": 0.1, "word_dropout": 0.05, "attention_query": "state", "layer_norm": False,
        },
        "train": {
            "batch_tokens": 200, "epochs": 2, "warmup": 5, "learning_rate": 5e-3,
            "validate_sentences": 8, "log_samples": 2, "ema": 0.0, "guided_alignment": 0.0,
        },
        "search": {"beam": 1},
    }  # fmt: skip
    for section, keys in sections.items():
        tree[section] = {**tree[section], **keys}  # type: ignore[dict-item]
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    return path


def accept_changes(run: Path) -> None:
    """Update the hashes of a run's files, so that edited files are not refused as damaged."""
    info = load_record(run / "run.json", RunInfo)
    changes = {
        "files": {name: FileRecord.of(run / name) for name in info.files if (run / name).exists()},
        "config": [FileRecord.of(run / "config.yaml")],
    }
    (run / "run.json").write_bytes(dump_record(info.model_copy(update=changes)))
