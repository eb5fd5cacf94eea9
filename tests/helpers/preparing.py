"""A small corpus and functions for tests of `nmt prepare`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.command import Nmt

NOUNS = ["猫 cat", "狗 dog", "书 book", "茶 tea", "花 flower", "山 hill", "鱼 fish", "门 door"]
VERBS = ["看见 saw", "喜欢 liked", "找到 found", "画了 drew", "买了 bought", "忘了 forgot"]
SUBJECTS = ["我 I", "你 you", "他 he", "她 she", "老师 the teacher", "妹妹 my sister"]


def sentences() -> list[tuple[str, str]]:
    """Return 288 pairs, all different on both sides."""
    pairs = []
    for subject in SUBJECTS:
        for verb in VERBS:
            for noun in NOUNS:
                (a, x), (b, y), (c, z) = (part.split(" ", 1) for part in (subject, verb, noun))
                pairs.append((f"{a}昨天{b}一{c}。", f"{x} {y} a {z} yesterday.".capitalize()))
    return pairs


Run = Nmt


def write_tsv(path: Path, pairs: list[tuple[str, str]]) -> None:
    path.write_text("".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8", newline="\n")


def write_config(sources: str, data: str = "") -> None:
    Path("c.yaml").write_text(
        "run: runs/t\n"
        "data:\n"
        "  dir: data/t\n"
        f"  sources: [{sources}]\n"
        "  dev: 10\n  test: 20\n  src_vocab: 400\n  trg_vocab: 400\n" + data,
        encoding="utf-8",
    )


def manifest() -> dict:
    return json.loads(Path("data/t/manifest.json").read_text(encoding="utf-8"))


def snapshot(folder: str = "data/t") -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(Path(folder).iterdir())}
