"""A toy language pair and a tiny network, for tests that train: seconds, not minutes."""

import itertools
import os
from pathlib import Path

import numpy as np
import yaml

from nmt.data.packed import PackedWriter
from nmt.run.directory import RunInfo
from nmt.run.records import FileRecord, dump_record, load_record

# A network this small is slower on several threads, far slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_WHO = {"我": "I", "你": "you", "他们": "they", "我们": "we"}
_WHEN = {"今天": "today", "明天": "tomorrow", "晚上": "at night"}
_DO = {"吃": "eat", "买": "buy", "喜欢": "like", "看见": "see", "找": "look for"}
_WHAT = {"苹果": "apples", "书": "books", "猫": "cats", "水": "water", "花": "flowers"}


def pairs() -> list[tuple[str, str]]:
    """All 300 sentences of the toy language, Chinese and English."""
    return [
        (f"{who}{when}{do}{what}。", f"{_WHO[who]} {_DO[do]} {_WHAT[what]} {_WHEN[when]}.")
        for who, when, do, what in itertools.product(_WHO, _WHEN, _DO, _WHAT)
    ]


def add(writer: PackedWriter, *sides: list[list[int]]) -> None:
    """Append sentences to a corpus, as many on one side as on the other."""
    ids = [np.array(list(itertools.chain.from_iterable(side)), np.int64) for side in sides]
    writer.add(tuple(ids), tuple(np.array([*map(len, side)], np.int64) for side in sides))


def write_config(folder: Path, **sections: dict[str, object]) -> Path:
    """Write the toy corpus and a configuration for it; keys given replace the toy's own."""
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
    """Record the edited files of a run, so that they are not refused as damaged."""
    info = load_record(run / "run.json", RunInfo)
    changes = {
        "files": {name: FileRecord.of(run / name) for name in info.files if (run / name).exists()},
        "config": [FileRecord.of(run / "config.yaml")],
    }
    (run / "run.json").write_bytes(dump_record(info.model_copy(update=changes)))
