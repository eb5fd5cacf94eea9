"""What `nmt prepare` tells: a short table on stderr; all of it is in the manifest."""

from __future__ import annotations

from nmt.prepare.pipeline import Manifest


def summary(manifest: Manifest) -> str:
    """The table: pairs read, dropped by reason with one example, kept by set, pieces."""
    rows = [(name, count, "") for name, count in manifest["read"].items()]
    lines = ["read", *_rows(rows)]
    if manifest["dropped"]:
        dropped = [
            (reason, -count, _example(manifest["examples"].get(reason, [])))
            for reason, count in manifest["dropped"].items()
        ]
        lines += ["dropped, and an example", *_rows(dropped)]
    train = manifest["train"]
    kept = [
        ("train", train["pairs"], f"{train['src_pieces']:,} + {train['trg_pieces']:,} pieces"),
        ("dev", manifest["dev"]["pairs"], ""),
        ("test", manifest["test"]["pairs"], ""),
    ]
    lines += ["kept", *_rows(kept)]
    sizes = manifest["tokenizers"]
    lines.append(
        f"vocabulary: {sizes['src']['pieces']:,} Chinese, {sizes['trg']['pieces']:,} English"
    )
    return "\n".join(lines)


def _rows(rows: list[tuple[str, int, str]]) -> list[str]:
    width = max(len(name) for name, _, _ in rows)
    return [f"  {name:<{width}}  {count:>10,}  {note}".rstrip() for name, count, note in rows]


def _example(examples: list[list[str]]) -> str:
    if not examples:
        return ""
    src, trg = (text if len(text) <= 30 else text[:29] + "…" for text in examples[0])
    return f"{src} | {trg}"
