"""Attention as one self-contained HTML page: a matrix a sentence, words that light up.

It works from a file, without a network and without anything beside it. Without scripts
the matrices are still there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import IO

from nmt.io.write import replacing
from nmt.translate.attention_map import Alignment
from nmt.translate.flags import Flag

_LEAST = 0.01  # weights below this are not drawn

_HEAD = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What each word attended to</title>
<style>
:root { color-scheme: light dark; --text: #1c1c1e; --soft: #6b6b70; --ground: #ffffff;
  --card: #f5f5f7; --line: #d9d9de; --ink: 29 78 216; --warn: #9a3412; }
@media (prefers-color-scheme: dark) { :root { --text: #ececf1; --soft: #a0a0a8;
  --ground: #17171a; --card: #212126; --line: #3a3a42; --ink: 96 165 250; --warn: #fdba74; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC",
  "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .25rem; }
p { margin: 0 0 1rem; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .75rem; margin: 0 0 1rem; }
.zh { font-size: 1.35rem; line-height: 1.7; }
.en { font-size: 1.1rem; margin-bottom: .5rem; }
.zh span, .en span { --w: 0; background: rgb(var(--ink) / calc(var(--w) * .75));
  border-radius: .25rem; padding: .1rem .05rem; cursor: pointer; overflow-wrap: anywhere; }
.en span { padding: .1rem .2rem; }
.picked { outline: 2px solid rgb(var(--ink)); }
.flag { color: var(--warn); font-size: .9rem; margin: 0 0 .25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 1px; font-size: .9rem; }
th { font-weight: normal; }
thead th { min-width: 1.5rem; padding: 0; text-align: center; }
tbody th { position: sticky; left: 0; background: var(--card); text-align: right;
  padding: 0 .4rem 0 0; white-space: nowrap; }
td { --w: 0; width: 1.5rem; min-width: 1.5rem; height: 1.5rem; border-radius: .15rem;
  background: rgb(var(--ink) / var(--w)); box-shadow: inset 0 0 0 1px var(--line); }
.on { box-shadow: inset 0 0 0 2px rgb(var(--ink)); }
th.on { box-shadow: none; color: rgb(var(--ink)); font-weight: bold; }
</style>
<h1>What each word attended to</h1>
<p>Hover or tap a word to light up the characters it was made from, or a character to light up
the words made from it. The stronger the colour, the more; a row sums to 1.</p>
"""

_SCRIPT = """\
<script>
"use strict";
for (const section of document.querySelectorAll("section")) {
  const characters = [...section.querySelectorAll(".zh span")];
  const words = [...section.querySelectorAll(".en span")];
  const rows = [...section.querySelectorAll("tbody tr")];
  const heads = [...section.querySelectorAll("thead th")].slice(1);
  const weight = (word, character) =>
    Number(rows[word].cells[character + 1].style.getPropertyValue("--w") || 0);
  let pinned = null;
  const show = (side, index) => {
    for (const one of section.querySelectorAll(".on, .picked"))
      one.classList.remove("on", "picked");
    words.forEach((span, word) => span.style.setProperty("--w",
      side === "character" ? weight(word, index) : 0));
    characters.forEach((span, character) => span.style.setProperty("--w",
      side === "word" ? weight(index, character) : 0));
    if (side === "word") {
      words[index].classList.add("picked");
      for (const cell of rows[index].cells) cell.classList.add("on");
    } else if (side === "character") {
      characters[index].classList.add("picked");
      heads[index].classList.add("on");
      for (const row of rows) row.cells[index + 1].classList.add("on");
    }
  };
  const back = () => pinned ? show(...pinned) : show(null, null);
  const listen = (element, side, index) => {
    element.addEventListener("pointerenter", event => {
      if (event.pointerType === "mouse") show(side, index);
    });
    element.addEventListener("pointerleave", event => {
      if (event.pointerType === "mouse") back();
    });
    element.addEventListener("click", () => {
      const same = pinned && pinned[0] === side && pinned[1] === index;
      pinned = same ? null : [side, index];
      back();
    });
  };
  words.forEach((span, word) => listen(span, "word", word));
  characters.forEach((span, character) => listen(span, "character", character));
  rows.forEach((row, word) => listen(row.cells[0], "word", word));
  heads.forEach((head, character) => listen(head, "character", character));
}
</script>
</html>
"""


class Page:
    """A page that is written sentence by sentence, so that any number fits."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path) -> Iterator[Page]:
        """A page that appears under its name when it is whole.

        Raises:
            NmtError: it can't be written.
        """
        with replacing(path) as file:
            file.write(_HEAD.encode())
            yield cls(file)
            file.write(_SCRIPT.encode())

    def add(self, alignment: Alignment, flags: Sequence[Flag]) -> None:
        """One sentence; a blank line is left out."""
        if alignment.words or flags:
            self._file.write(_section(alignment, flags).encode())


def _section(alignment: Alignment, flags: Sequence[Flag]) -> str:
    characters = "".join(f"<span>{_shown(c)}</span>" for c in alignment.characters)
    words = " ".join(f"<span>{escape(word)}</span>" for word in alignment.words)
    warnings = "".join(
        f'<p class="flag">⚑ {escape(flag.name)}: {escape(flag.detail)}</p>\n' for flag in flags
    )
    head = "".join(f"<th>{_shown(c)}" for c in alignment.characters)
    body = "".join(
        f"<tr><th>{escape(word)}{''.join(map(_cell, row))}\n"
        for word, row in zip(alignment.words, alignment.weights.tolist(), strict=True)
    )
    return (
        f'<section>\n<div class="zh" lang="zh">{characters}</div>\n'
        f'<div class="en" lang="en">{words}</div>\n{warnings}'
        f'<div class="scroll"><table>\n<thead lang="zh"><tr><th>{head}\n'
        f"<tbody>\n{body}</table></div>\n</section>\n"
    )


def _cell(weight: float) -> str:
    return "<td>" if weight < _LEAST else f'<td style="--w:{weight:.2f}" title="{weight:.2f}">'


def _shown(character: str) -> str:
    return escape(character) if character.isprintable() else "\u00a0"
