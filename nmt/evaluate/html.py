"""``report.html``: one self-contained page about a run and its scores."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmt.config.load import dump_config
from nmt.errors import NmtError
from nmt.evaluate import charts
from nmt.evaluate.inputs import System, Texts
from nmt.evaluate.lengths import Bucket
from nmt.evaluate.metrics import Score, sentence_scores
from nmt.evaluate.tables import with_interval
from nmt.evaluate.texts import texts_sha256
from nmt.run.journal import read_journal
from nmt.translate.attention_map import Alignment
from nmt.version import __version__

if TYPE_CHECKING:
    from nmt.evaluate.gate import Check

_SHOWN = 10  # worst and best sentences
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --paper: #fff;
  --line: #d8dde3; --weight: 0, 114, 178; --bad: #b3261e; --good: #1a7f37; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a0a9b2;
  --paper: #14171a; --line: #343a41; --weight: 86, 180, 233; --bad: #ff8a80;
  --good: #6fdd8b; } figure { background: #fff; border-radius: 6px; } }
body { font: 16px/1.5 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei",
  sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem .2rem 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; font-size: .85rem; border: 1px solid var(--line); padding: .7rem;
  border-radius: 6px; } code { font-size: .85rem; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); }
details { margin: .6rem 0; border-bottom: 1px solid var(--line); padding-bottom: .6rem; }
summary { cursor: pointer; } dl { margin: .3rem 0; } dt { color: var(--soft);
  font-size: .85rem; } dd { margin: 0 0 .3rem 0; }
table.a { font-size: .9rem; } table.a th, table.a td { border: 0; padding: .1rem .25rem;
  text-align: center; min-width: 1.2rem; } table.a th[scope=row] { text-align: right; }
""".strip()

Banded = tuple[Sequence[Bucket], Mapping[str, Sequence[Score]]]


def report_page(
    system: System,
    texts: Texts,
    scores: Sequence[Score],
    checks: Sequence[Check],
    banded: Banded | None,
) -> str:
    """The page; nothing in it is fetched from elsewhere, and no script runs.

    Args:
        system: evaluated; a run also shows its curves, data and configuration.
        texts: scored on.
        scores: of the system.
        checks: of the gate.
        banded: scores by source length, None without a source.
    """
    parts = [_scores(scores, texts, checks)]
    if banded is not None:
        parts.append(_lengths(banded))
    if system.run is not None:
        parts.append(_training(read_journal(system.run.folder)))
    parts.append(_sentences(system, texts))
    if system.run is not None:
        parts.append(_data(system.run.folder))
    parts.append(_repeat(system, texts, scores))
    title = _e(f"nmt evaluate: {system.name}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _scores(scores: Sequence[Score], texts: Texts, checks: Sequence[Check]) -> str:
    rows = [[one.name, _tight(with_interval(one)), one.signature] for one in scores]
    text = "<h2>Scores</h2>\n" + _table(
        ["metric", "score [95\u00a0%\u00a0interval]", "signature"], rows
    )
    text += f'\n<p class="soft">{texts.segments:,} segments, bootstrap intervals.</p>'
    if checks:
        items = "\n".join(
            f'<li class="{"good" if c.passed else "bad"}">'
            f"{'passed' if c.passed else 'failed'}: {_e(c.message)}</li>"
            for c in checks
        )
        text += f"\n<h2>Gate</h2>\n<ul>\n{items}\n</ul>"
    return text


def _lengths(banded: Banded) -> str:
    buckets, scores = banded
    row = next(iter(scores.values()))
    rows = [
        [bucket.label, str(len(bucket.members)), _tight(with_interval(one))]
        for bucket, one in zip(buckets, row, strict=True)
    ]
    picture = charts.length_chart(buckets, scores, "svg")
    return (
        "<h2>By source length</h2>\n"
        + _figure(picture, f"{row[0].name} by source length; the table below has the numbers")
        + _table(["source characters", "segments", row[0].name], rows)
    )


def _training(journal: Sequence[Mapping[str, Any]]) -> str:
    picture = charts.curves(journal)
    if picture is None:
        return "<h2>Training</h2>\n<p>The run has no journal.</p>"
    return "<h2>Training</h2>\n" + _figure(
        picture, "training loss, dev BLEU, learning rate and speed over updates"
    )


def _sentences(system: System, texts: Texts) -> str:
    values = sentence_scores(system.hypotheses, texts.references)
    order = sorted(range(len(values)), key=lambda n: (values[n], n))
    shown = min(_SHOWN, len(order))
    parts = []
    for title, numbers in (("Worst", order[:shown]), ("Best", order[::-1][:shown])):
        parts.append(f"<h2>{title} sentences, by chrF2</h2>")
        parts += [_sentence(system, texts, number, values[number]) for number in numbers]
    return "\n".join(parts)


def _sentence(system: System, texts: Texts, number: int, value: float) -> str:
    fields = [("reference", lines[number]) for lines in texts.references]
    fields.append(("translation", system.hypotheses[number]))
    if texts.source is not None:
        fields.insert(0, ("source", texts.source[number]))
    head = texts.source[number] if texts.source is not None else system.hypotheses[number]
    listed = "".join(f"<dt>{name}</dt><dd>{_e(text)}</dd>" for name, text in fields)
    grids = ""
    if system.translator is not None:
        alignments = system.translator.alignments(system.translations[number])
        grids = "".join(_grid(alignment) for alignment in alignments)
    return (
        f"<details><summary>{value:.1f} · line {number + 1} · {_e(head)}</summary>\n"
        f"<dl>{listed}</dl>{grids}</details>"
    )


def _grid(alignment: Alignment) -> str:
    """Attention as a table: characters across, words down, darker is more."""
    if not alignment.words:
        return ""
    head = "".join(f'<th scope="col">{_e(c)}</th>' for c in alignment.characters)
    rows = []
    for word, weights in zip(alignment.words, alignment.weights, strict=True):
        cells = "".join(
            f'<td style="background:rgba(var(--weight),{weight:.2f})" title="{weight:.2f}"></td>'
            for weight in weights.tolist()
        )
        rows.append(f'<tr><th scope="row">{_e(word)}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table class="a"><tr><td></td>{head}</tr>{"".join(rows)}</table></div>'
    )


def _data(folder: Path) -> str:
    """What the corpus was, as far as the run's manifest, old or new, says it."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "<h2>Data</h2>\n<p>The run was sent on without its manifest.</p>"
    except (OSError, ValueError) as error:
        raise NmtError(f"{path}: missing or damaged ({error})") from error
    rows = [[f"read, {name}", f"{n:,}"] for name, n in manifest.get("read", {}).items()]
    rows += [[f"dropped, {reason}", f"{n:,}"] for reason, n in manifest.get("dropped", {}).items()]
    for name in ("train", "dev", "test"):
        rows.append([f"kept, {name}", f"{manifest.get(name, {}).get('pairs', 0):,}"])
    for side, tokenizer in manifest.get("tokenizers", {}).items():
        rows.append([f"vocabulary, {side}", f"{tokenizer['pieces']:,} pieces"])
    return "<h2>Data</h2>\n" + _table(["", ""], rows)


def _repeat(system: System, texts: Texts, scores: Sequence[Score]) -> str:
    rows = [["program", f"nmt {__version__}"]]
    rows += [[one.name, one.signature] for one in scores]
    rows += [[f"{role}, SHA-256", digest] for role, digest in texts.sha256().items()]
    rows.append(["hypotheses, SHA-256", texts_sha256(system.hypotheses)])
    rows += [[key, str(value)] for key, value in system.details.items()]
    text = "<h2>To repeat</h2>\n" + _table(["", ""], rows)
    if system.run is not None:
        text += "\n<h3>Configuration</h3>\n<pre>" + _e(dump_config(system.run.config)) + "</pre>"
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_e(cell)}</th>" for cell in head) if any(head) else ""
    body = "\n".join(
        "<tr>" + "".join(f"<td><span>{_e(cell)}</span></td>" for cell in row) + "</tr>"
        for row in rows
    )
    first = f"<tr>{top}</tr>\n" if top else ""
    return f'<div class="wide"><table>\n{first}{body}\n</table></div>'


def _figure(svg: bytes, label: str) -> str:
    text = svg.decode()
    return f'<figure role="img" aria-label="{_e(label)}">\n{text[text.index("<svg") :]}</figure>\n'


def _e(text: str) -> str:
    return html.escape(text)


def _tight(text: str) -> str:
    """Kept on one line."""
    return text.replace(" ", "\u00a0")
