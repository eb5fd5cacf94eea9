"""The report of `nmt prepare`: a table for stderr and an HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nmt.data.manifest import Manifest

ManifestDict = dict[str, Any]  # of `Manifest.model_dump`
Row = tuple[str, int, str]

REPORT = "report.html"
_BARS = 40  # of a histogram
_NAMED = 3  # sources in the first line

# What a reader may want to do about each kind of drop; the rest explain themselves.
_ADVICE = {
    "duplicate pair": "The same pair stands earlier in the sources.",
    "over the cap of its source": "Drawn at random; the pairs that stay are a sample.",
    "left out by the weight of its source": "Drawn at random, for a weight below 1.",
    "control characters": "Often a file decoded with the wrong encoding.",
    "length ratio": "data.clean.max_ratio; many of them mean shifted lines.",
    "too long": "data.clean.max_chars",
    "no Chinese in source": "If there are many, the sides may be swapped.",
    "Chinese in target": "Untranslated remains, or a mention of a character.",
    "foreign script": "data.clean.max_foreign",
    "repeated run": "data.clean.max_repeats",
    "markup": "data.clean.markup: keep, unequal or drop",
    "number mismatch": "data.clean.numbers: a number in digits that the other side lacks.",
    "near-duplicate pair": "Alike but for case, punctuation and spaces.",
    "meets dev or test": "Shares a sentence with a held-out pair, so it can't be trained on.",
}
# The same for reasons with a number or a file in their names, by how they begin.
_ADVICE_BY_START = {
    "meets ": "Shares a sentence with this file of data.exclude.",
    "one target for ": "A place-holder, most likely; data.clean.max_sources_per_target.",
    "over ": "data.clean.max_pieces",
    "under ": "data.clean.min_pieces",
}
_OPEN = 4  # reasons that are unfolded: on a phone all of them are many screens


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
    src, trg = (_shorten(text, 30) for text in plain)
    return f"{src} | {trg}"


def _shorten(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


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


def write_html(folder: Path, corpus: Manifest) -> None:
    """Write ``report.html``: one file, no script, nothing fetched from elsewhere."""
    manifest = corpus.model_dump()
    body = "".join(
        (
            _head(manifest),
            _section("What became of the pairs", _flow(manifest)),
            _section("Dropped, and why", _dropped(manifest)),
            _section("The Chinese text", _chinese(manifest)),
            _section("Lengths", _lengths(manifest)),
            _section("Pieces", _pieces(manifest)),
            _section("Sources", _sources(manifest)),
        )
    )
    page = _PAGE.replace("{body}", body)
    (folder / REPORT).write_text(page, encoding="utf-8", newline="\n")


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>" if content else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of cells that are HTML already; cells that look like numbers stand right."""
    titles = "".join(f"<th>{_text(title)}</th>" for title in head)
    lines = "".join(
        "<tr>" + "".join(f"<td{_right(cell)}>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>'


def _right(cell: str) -> str:
    return ' class="n"' if cell[:1].isdigit() and cell[-1:] in "0123456789%" else ""


def _head(manifest: ManifestDict) -> str:
    read = sum(manifest["read"].values())
    lost = sum(manifest["dropped"].values())
    tiles = [
        (f"{read:,}", "pairs read"),
        (f"{manifest['train']['pairs']:,}", "to train on"),
        (f"{manifest['dev']['pairs']:,} + {manifest['test']['pairs']:,}", "dev and test"),
        (_share(lost, read), "dropped"),
    ]
    inner = "".join(f"<div><b>{_text(n)}</b><span>{_text(t)}</span></div>" for n, t in tiles)
    warnings = "".join(f"<p class=warn>{_text(warning)}</p>" for warning in manifest["warnings"])
    names = list(manifest["read"])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    sources = f"{', '.join(names[:_NAMED])}{more}"
    return (
        f"<h1>Corpus report</h1><p class=note>{_text(sources)}</p>"
        f"<div class=tiles>{inner}</div>{warnings}"
    )


def _flow(manifest: ManifestDict) -> str:
    train = manifest["train"]
    rows: list[tuple[str, int, str]] = [
        ("read", sum(manifest["read"].values()), "all"),
        *((reason, count, "bad") for reason, count in manifest["dropped"].items()),
        ("train", train["pairs"], "good"),
        ("dev", manifest["dev"]["pairs"], "good"),
        ("test", manifest["test"]["pairs"], "good"),
    ]
    if manifest["repeated"]:
        rows.insert(1, ("repeated for their weight", manifest["repeated"], "all"))
    most = max(count for _, count, _ in rows)
    return "<div class=flow>" + "".join(_bar(*row, most) for row in rows) + "</div>"


def _bar(name: str, count: int, kind: str, most: int) -> str:
    width = max(100 * count / most, 0.3) if count else 0
    return (
        f"<span>{_text(name)}</span><span class=n>{count:,}</span>"
        f'<span class=track><i class={kind} style="width:{width:.2f}%"></i></span>'
    )


def _dropped(manifest: ManifestDict) -> str:
    if not manifest["dropped"]:
        return "<p>Nothing was dropped.</p>"
    read = sum(manifest["read"].values())
    parts: list[str] = []
    for reason, count in manifest["dropped"].items():
        rows = [
            f"<li><span lang=zh>{_visible(src)}</span><span lang=en>{_visible(trg)}</span></li>"
            for src, trg in manifest["examples"].get(reason, [])
        ]
        advice = f"<p class=note>{_text(_advice(reason))}</p>" if _advice(reason) else ""
        unfolded = " open" if len(parts) < _OPEN else ""
        parts.append(
            f"<details{unfolded}><summary>{_text(reason)} <b>{count:,}</b> "
            f"<small>{_share(count, read)}</small></summary>{advice}"
            f"<ul class=pairs>{''.join(rows)}</ul></details>"
        )
    return "".join(parts)


def _advice(reason: str) -> str:
    starts = (text for start, text in _ADVICE_BY_START.items() if reason.startswith(start))
    return _ADVICE.get(reason) or next(starts, "")


def _visible(text: str) -> str:
    """Text with its invisible characters named, shortened for the page."""
    shown = _shorten(text, 160)
    marked = "".join(
        f"<code>U+{ord(c):04X}</code>" if not c.isprintable() else _text(c) for c in shown
    )
    return marked or "<em>empty</em>"


def _chinese(manifest: ManifestDict) -> str:
    statistics = manifest["statistics"]
    counts = statistics["counts"]
    marks = counts["full-width punctuation"] + counts["half-width punctuation"]
    labels = ("in Simplified", "in Traditional", "that mix both", "alike in both scripts")
    rows = [
        (f"Sentences {label}", share)
        for label, (_, share) in zip(labels, _scripts(counts), strict=True)
    ]
    rows += [
        ("Full-width punctuation", _share(counts["full-width punctuation"], marks)),
        ("Half-width punctuation", _share(counts["half-width punctuation"], marks)),
        ("Sentences with Latin letters", _share(counts["sources with Latin"], counts["pairs"])),
        (
            "Latin among all characters",
            _share(counts["Latin letters"], counts["source characters"]),
        ),
    ]
    simplify = manifest["tokenizers"]["src"]["simplify"]
    note = (
        "The model reads all of it as Simplified and half-width (NFKC)."
        if simplify
        else "The model reads both scripts as they are, half-width (NFKC)."
    )
    table = _table(("", "share"), ((_text(name), _text(share)) for name, share in rows))
    return f"<p class=note>{note} References stay as they were.</p>{table}"


def _lengths(manifest: ManifestDict) -> str:
    titles = {
        "src characters": "Chinese, characters",
        "trg characters": "English, characters",
        "src pieces": "Chinese, pieces (train)",
        "trg pieces": "English, pieces (train)",
    }
    lengths = manifest["statistics"]["lengths"]
    return "<div class=grid>" + "".join(
        f"<figure><figcaption>{_text(title)}</figcaption>{_histogram(lengths[name])}</figure>"
        for name, title in titles.items()
        if name in lengths
    ) + "</div>"  # fmt: skip


def _histogram(counts: list[int]) -> str:
    """An SVG of how many sentences have each length, cut where the last hundredth begins."""
    total = sum(counts)
    if not total:
        return "<p>none</p>"
    middle, high = _quantile(counts, 0.5), _quantile(counts, 0.99)
    step = -(-(high + 1) // _BARS)
    bars = [sum(counts[low : low + step]) for low in range(0, high + 1, step)]
    tallest, width = max(bars), 100 / len(bars)
    rects = "".join(
        f'<rect x="{i * width:.2f}" y="{46 - 44 * n / tallest:.2f}" width="{width * 0.86:.2f}" '
        f'height="{44 * n / tallest:.2f}"><title>{_span(i * step, step)}: {n:,}</title></rect>'
        for i, n in enumerate(bars)
    )
    average = sum(length * n for length, n in enumerate(counts)) / total
    return (
        '<svg viewBox="0 0 100 46" preserveAspectRatio="none" role="img" '
        f'aria-label="lengths 0 to {high}">{rects}</svg>'
        f"<div class=axis><span>0</span><span>{high}</span></div>"
        f"<p class=note>mean {average:.1f}, median {middle}, 99 % up to {high}</p>"
    )


def _span(low: int, step: int) -> str:
    return str(low) if step == 1 else f"{low} to {low + step - 1}"


def _quantile(counts: list[int], share: float) -> int:
    total, seen = sum(counts), 0
    for length, count in enumerate(counts):
        seen += count
        if seen >= share * total:
            return length
    return len(counts) - 1


def _pieces(manifest: ManifestDict) -> str:
    statistics = manifest["statistics"]
    parts: list[str] = []
    for side, name in (("src", "Chinese"), ("trg", "English")):
        size = manifest["tokenizers"][side]["pieces"]
        unused = statistics["unused_pieces"].get(side, 0)
        top = statistics["pieces"].get(side, [])[:40]
        chips = "".join(f"<li>{_text(piece)} <small>{n:,}</small></li>" for piece, n in top)
        kinds, times = statistics["byte_totals"].get(side, [0, 0])
        share = _share(
            times, sum(n * i for i, n in enumerate(statistics["lengths"][f"{side} characters"]))
        )
        fallen = "".join(
            f"<li>{_visible(c) if c.strip() else 'space'} <small>{n:,}</small></li>"
            for c, n in statistics["byte_characters"].get(side, [])[:40]
        )
        parts.append(
            f"<h3>{name}: {size:,} pieces, {unused:,} of them never used in train</h3>"
            f"<p class=note>The most frequent</p><ul class=chips>{chips}</ul>"
            f"<p class=note>Characters spelled in bytes: {kinds:,} different, {times:,} times, "
            f"{share} of all characters</p><ul class=chips>{fallen}</ul>"
        )
    return "".join(parts)


def _sources(manifest: ManifestDict) -> str:
    hashes = manifest["sources"]
    rows = [(_text(name), f"{count:,}") for name, count in manifest["read"].items()]
    files = [
        (_text(path), f"<code>{(digest or '')[:16]}</code>") for path, digest in hashes.items()
    ]
    listed = _table(("file", "SHA-256"), files) if files else ""
    made = f"nmt {manifest['program']}, Python {manifest['python']}, format {manifest['format']}"
    return _table(("source", "pairs"), rows) + listed + f"<p class=note>{_text(made)}</p>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Corpus report</title>
<style>
:root { --ink: #1c2330; --soft: #5d6779; --line: #dfe4ec; --page: #fff; --card: #f5f7fa;
  --all: #8b96a8; --good: #2b7a5f; --bad: #c2583a; --bar: #3c6fb4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf1; --soft: #9aa5b7; --line: #323b4a;
  --page: #151a22; --card: #1e2530; --all: #6d788b; --good: #4fae8c; --bad: #e08062;
  --bar: #6f9fe0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--ink); background: var(--page);
  font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
.tiles, .grid { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.grid { grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
.tiles div, figure { margin: 0; padding: .7rem .9rem; background: var(--card); border-radius: .5rem; }
.tiles b { display: block; font-size: 1.35rem; } .tiles span { color: var(--soft); }
.flow { display: grid; grid-template-columns: minmax(7rem, 40%) auto 1fr; gap: .2rem .7rem;
  align-items: center; overflow-wrap: anywhere; }
.track { background: var(--card); height: .9rem; border-radius: .2rem; overflow: hidden; }
.track i { display: block; height: 100%; }
i.all { background: var(--all); } i.good { background: var(--good); } i.bad { background: var(--bad); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
h1 + .note { margin: -.6rem 0 1rem; } h2, h3, summary, .note { overflow-wrap: anywhere; }
.note { color: var(--soft); margin: .3rem 0; font-size: .9rem; }
.warn { border-left: .25rem solid var(--bad); padding-left: .6rem; }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; }
.pairs { list-style: none; padding: 0; margin: .3rem 0; }
.pairs li { display: grid; grid-template-columns: 1fr 1fr; gap: .2rem 1rem; padding: .25rem 0; }
.pairs span { overflow-wrap: anywhere; } .pairs span + span { color: var(--soft); }
code { font-size: .8em; background: var(--line); border-radius: .2rem; padding: 0 .2em; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .5rem .25rem 0;
  border-bottom: 1px solid var(--line); text-align: left; overflow-wrap: anywhere; }
td.n { text-align: right; } th:nth-child(n+2) { text-align: right; } td:nth-child(n+2) { text-align: right; }
svg { width: 100%; height: 7rem; display: block; } rect { fill: var(--bar); }
.axis { display: flex; justify-content: space-between; color: var(--soft); font-size: .8rem;
  border-top: 1px solid var(--line); }
.chips { display: flex; flex-wrap: wrap; gap: .3rem; list-style: none; padding: 0; margin: .2rem 0; }
.chips li { background: var(--card); border-radius: .3rem; padding: 0 .4rem; } small { color: var(--soft); white-space: nowrap; }
@media (max-width: 34rem) { .pairs li { grid-template-columns: 1fr; }
  .flow { grid-template-columns: minmax(0, 1fr) auto; } .track { grid-column: 1 / -1; } }
</style></head><body>
{body}
</body></html>
"""
