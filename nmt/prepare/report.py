"""The report of `nmt prepare`: a table for stderr and an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt.data.manifest import Manifest
from nmt.viz import html

Row = tuple[str, int, str]

REPORT = "report.html"
_MAX_BARS = 40  # of a histogram
_MAX_NAMES = 3  # of sources in the page's first line
_MAX_PIECES = 40
_OPEN_DROPS = 4  # reasons shown unfolded

# Causes and configuration keys by reason.
_ADVICE = {
    "duplicate pair": "The same pair occurs earlier in the sources.",
    "over the cap of its source": "Sampled at random; the remaining pairs are a random sample.",
    "left out by the weight of its source": "Sampled at random, because the weight is below 1.",
    "control characters": "Often a file decoded with the wrong encoding.",
    "length ratio": "data.clean.max_ratio; a large number suggests misaligned lines.",
    "too long": "data.clean.max_chars",
    "no Chinese in source": "If there are many, the sides may be swapped.",
    "Chinese in target": "Untranslated text, or a quoted character.",
    "foreign script": "data.clean.max_foreign",
    "repeated run": "data.clean.max_repeats",
    "markup": "data.clean.markup: keep, unequal or drop",
    "number mismatch": "data.clean.numbers: a number that occurs on one side only.",
    "near-duplicate pair": "Equal except for case, punctuation and spaces.",
    "meets dev or test": "Shares a sentence with a held-out pair.",
}
# The same for reasons that contain a number or a file name, by prefix.
_ADVICE_BY_PREFIX = {
    "meets ": "Shares a sentence with this file of data.exclude.",
    "one target for ": "Probably a placeholder; data.clean.max_sources_per_target.",
    "over ": "data.clean.max_pieces",
    "under ": "data.clean.min_pieces",
}


def summary(manifest: Manifest) -> str:
    """Return the table: pairs read, dropped by reason with an example, kept by set, pieces."""
    rows: list[Row] = [(name, count, "") for name, count in manifest.read.items()]
    if manifest.repeated:
        rows.append(("repeated for their weight", manifest.repeated, ""))
    lines = ["read", *_rows(rows)]
    if manifest.dropped:
        dropped = [
            (reason, -count, _example(manifest.examples.get(reason, [])))
            for reason, count in manifest.dropped.items()
        ]
        lines += ["dropped, with an example", *_rows(dropped)]
    train, tokenizers = manifest.train, manifest.tokenizers
    kept = [
        ("train", train.pairs, f"{train.src_pieces:,} + {train.trg_pieces:,} pieces"),
        ("dev", manifest.dev.pairs, ""),
        ("test", manifest.test.pairs, ""),
    ]
    lines += ["kept", *_rows(kept)]
    sizes = {side: f"{tokenizer.pieces:,}" for side, tokenizer in tokenizers.items()}
    lines.append(f"vocabulary: {sizes['src']} Chinese, {sizes['trg']} English")
    shares = ", ".join(f"{share} {name}" for name, share in _scripts(manifest.statistics.counts))
    lines.append(f"Chinese: {shares}")
    return "\n".join(lines)


def _rows(rows: list[Row]) -> list[str]:
    width = max(len(name) for name, _, _ in rows)
    return [f"  {name:<{width}}  {count:>10,}  {note}".rstrip() for name, count, note in rows]


def _example(examples: list[tuple[str, str]]) -> str:
    if not examples:
        return ""
    # A terminal would execute control characters.
    plain = ("".join(c if c.isprintable() else " " for c in text) for text in examples[0])
    src, trg = (html.shorten(text, 30) for text in plain)
    return f"{src} | {trg}"


def _scripts(counts: dict[str, int]) -> list[tuple[str, str]]:
    names = {
        "simplified": "Simplified",
        "traditional": "Traditional",
        "mixed scripts": "mixed",
        "either script": "the same in both",
    }
    return [(label, _share(counts.get(name, 0), counts["pairs"])) for name, label in names.items()]


def _share(part: float, whole: float) -> str:
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else f"{share:.1f} %"


@dataclass(frozen=True)
class _Histogram:
    """Number of sentences by length, up to the 99 % quantile.

    Attributes:
        title: of the figure.
        high: largest length shown.
        bars: label, count and height from 0 to 1 of each bar; empty without sentences.
        mean: of all lengths.
        median: of all lengths.
    """

    title: str
    high: int
    bars: list[tuple[str, int, float]]
    mean: float
    median: int


def write_html(folder: Path, manifest: Manifest) -> None:
    """Write ``report.html``: one file without scripts or external assets."""
    sets = {"train": manifest.train.pairs, "dev": manifest.dev.pairs, "test": manifest.test.pairs}
    read, dropped = sum(manifest.read.values()), sum(manifest.dropped.values())
    names = list(manifest.read)
    hidden = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    simplify = manifest.tokenizers["src"].simplify
    page = html.render(
        "corpus.html",
        names=", ".join(names[:_MAX_NAMES]) + hidden,
        tiles=[
            (f"{read:,}", "pairs read"),
            (f"{sets['train']:,}", "for training"),
            (f"{sets['dev']:,} + {sets['test']:,}", "dev and test"),
            (_share(dropped, read), "dropped"),
        ],
        warnings=manifest.warnings,
        flow=_flow(manifest, read, sets),
        dropped=[
            {
                "reason": reason,
                "count": count,
                "share": _share(count, read),
                "advice": _advice(reason),
                "examples": manifest.examples.get(reason, []),
            }
            for reason, count in manifest.dropped.items()
        ],
        open_drops=_OPEN_DROPS,
        script_note=(
            "The model reads all of it as Simplified and half-width (NFKC)."
            if simplify
            else "The model reads both scripts unchanged, half-width (NFKC)."
        ),
        chinese=_chinese(manifest.statistics.counts),
        lengths=_lengths(manifest.statistics.lengths),
        pieces=[_pieces(manifest, side) for side in ("src", "trg")],
        sources=[(name, f"{count:,}") for name, count in manifest.read.items()],
        files=[(path, (digest or "")[:16]) for path, digest in manifest.sources.items()],
        versions=f"nmt {manifest.program}, Python {manifest.python}, format {manifest.format}",
    )
    (folder / REPORT).write_text(page, encoding="utf-8", newline="\n")


def _flow(manifest: Manifest, read: int, sets: dict[str, int]) -> list[dict[str, Any]]:
    """Return the bars from pairs read to pairs kept; `width` in percent of the longest."""
    rows = [("read", read, "neutral")]
    if manifest.repeated:
        rows.append(("repeated for their weight", manifest.repeated, "neutral"))
    rows += [(reason, count, "bad") for reason, count in manifest.dropped.items()]
    rows += [(name, count, "good") for name, count in sets.items()]
    longest = max(count for _, count, _ in rows)
    return [
        {
            "name": name,
            "count": count,
            "kind": kind,
            "width": max(100 * count / longest, 0.3) if count else 0,
        }
        for name, count, kind in rows
    ]


def _advice(reason: str) -> str:
    matches = (text for prefix, text in _ADVICE_BY_PREFIX.items() if reason.startswith(prefix))
    return _ADVICE.get(reason) or next(matches, "")


def _chinese(counts: dict[str, int]) -> list[tuple[str, str]]:
    marks = counts["full-width punctuation"] + counts["half-width punctuation"]
    labels = ("in Simplified", "in Traditional", "with both scripts", "equal in both scripts")
    return [
        *(
            (f"Sentences {label}", share)
            for label, (_, share) in zip(labels, _scripts(counts), strict=True)
        ),
        ("Full-width punctuation", _share(counts["full-width punctuation"], marks)),
        ("Half-width punctuation", _share(counts["half-width punctuation"], marks)),
        ("Sentences with Latin letters", _share(counts["sources with Latin"], counts["pairs"])),
        (
            "Latin among all characters",
            _share(counts["Latin letters"], counts["source characters"]),
        ),
    ]


def _lengths(lengths: dict[str, list[int]]) -> list[_Histogram]:
    titles = {
        "src characters": "Chinese, characters",
        "trg characters": "English, characters",
        "src pieces": "Chinese, pieces (train)",
        "trg pieces": "English, pieces (train)",
    }
    return [_histogram(title, lengths[name]) for name, title in titles.items() if name in lengths]


def _histogram(title: str, counts: Sequence[int]) -> _Histogram:
    """Group the number of sentences of each length into at most 40 bars."""
    total = sum(counts)
    if not total:
        return _Histogram(title, 0, [], 0.0, 0)
    high = _quantile(counts, 0.99)
    step = -(-(high + 1) // _MAX_BARS)
    starts = range(0, high + 1, step)
    groups = [sum(counts[low : low + step]) for low in starts]
    labels = [str(low) if step == 1 else f"{low} to {low + step - 1}" for low in starts]
    bars = [
        (label, count, count / max(groups)) for label, count in zip(labels, groups, strict=True)
    ]
    mean = sum(length * count for length, count in enumerate(counts)) / total
    return _Histogram(title, high, bars, mean, _quantile(counts, 0.5))


def _quantile(counts: Sequence[int], share: float) -> int:
    total, cumulative = sum(counts), 0
    for length, count in enumerate(counts):
        cumulative += count
        if cumulative >= share * total:
            return length
    return len(counts) - 1


def _pieces(manifest: Manifest, side: str) -> dict[str, Any]:
    statistics = manifest.statistics
    characters = sum(n * i for i, n in enumerate(statistics.lengths[f"{side} characters"]))
    byte_kinds, byte_count = statistics.byte_totals.get(side, (0, 0))
    return {
        "language": {"src": "Chinese", "trg": "English"}[side],
        "size": manifest.tokenizers[side].pieces,
        "unused": statistics.unused_pieces.get(side, 0),
        "top": statistics.pieces.get(side, [])[:_MAX_PIECES],
        "byte_kinds": byte_kinds,
        "byte_count": byte_count,
        "byte_share": _share(byte_count, characters),
        "byte_characters": [
            (html.visible(c) if c.strip() else "space", count)
            for c, count in statistics.byte_characters.get(side, [])[:_MAX_PIECES]
        ],
    }
