"""HTML: text is translated, markup is not."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.serve.markup import translate_html

Translate = Callable[[list[str]], Awaitable[list[str]]]


async def upper(lines: list[str]) -> list[str]:
    """Translate to capitals; placeholders stay."""
    return [re.sub(r"</?x+\d+/?>|[^<]+|<", capital, line) for line in lines]


def capital(match: re.Match[str]) -> str:
    return match[0] if re.fullmatch(r"</?x+\d+/?>", match[0]) else match[0].upper()


async def without_tags(lines: list[str]) -> list[str]:
    """Translate to capitals and lose the placeholders."""
    return [re.sub(r"</?x+\d+/?>", "", line).upper() for line in lines]


async def same(lines: list[str]) -> list[str]:
    return lines


def translated(text: str, translate: Translate = upper) -> str:
    return asyncio.run(translate_html(text, translate))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "PLAIN"),
        ("<p>a <b>b</b> c</p>", "<p>A <b>B</b> C</p>"),
        ("<a href=\"b>c\" title='d'>e</a> f", "<a href=\"b>c\" title='d'>E</a> F"),
        ("a &amp; b &lt;b&gt; &copy;", "A &amp; B &lt;B&gt; ©"),
        ("a < b > c & d", "A &lt; B &gt; C &amp; D"),
        ("&nbsp;<br>&nbsp;", "&nbsp;<br>&nbsp;"),
        ("a<br/>b", "A<br/>B"),
        ("a <!-- b --> c", "A <!-- b --> C"),
        ("<!doctype html><title>a</title>", "<!doctype html><title>A</title>"),
        ("<script>if (a<b) c('</p>')</script>a", "<script>if (a<b) c('</p>')</script>A"),
        ("<style>p{}</style>a<textarea>b</textarea>", "<style>p{}</style>A<textarea>b</textarea>"),
        ("a <code>b(c) < d</code> e", "A <code>b(c) < d</code> E"),
        ("<p translate=no>a <i>b</i></p>c", "<p translate=no>a <i>b</i></p>C"),
        ('a <span class="x notranslate">b</span> c', 'A <span class="x notranslate">b</span> C'),
        ("a <b>b", "A <b>B"),
        ("a</b> b", "A</b> B"),
        ("<p>a<b>b<p>c</p>", "<p>A<b>B<p>C</p>"),
        ("<script>a", "<script>a"),
        ("<b", "&lt;B"),
        ("a <x0>b</x0> c", "A <x0>B</x0> C"),
        ("a &lt;x0&gt; <b>b</b> c", "A &lt;x0&gt; <b>B</b> C"),
        ("<b><i>a</i></b>", "<b><i>A</i></b>"),
        ("  <b> a </b>\n", "  <b> A </b>\n"),
        ("a<wbr>b", "A<wbr>B"),
    ],
)
def test_markup_is_kept(text: str, expected: str) -> None:
    assert translated(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a<b>b</b>c", "A <b>B</b> C"),
        ("a <b>b</b>, c", "A <b>B</b>, C"),
        ("<a href=x>a</a><i>b</i>", "<a href=x>A</a> <i>B</i>"),
    ],
)
def test_tags_that_the_translation_loses_keep_their_places(text: str, expected: str) -> None:
    assert translated(text, without_tags) == expected


async def nested_wrongly(lines: list[str]) -> list[str]:
    return [line.replace("</x0>", "").replace("</x1>", "</x0></x1>") for line in lines]


def test_tags_that_overlap_in_the_translation_are_refused() -> None:
    assert translated("a <b>b <i>c</i></b>", nested_wrongly) == "a <b>b <i>c</i></b>"


@given(
    st.lists(
        st.sampled_from([*"<>/!-&;\"' ab", "<b>", "</b>", "<p>", "<!--", "&amp;"]), max_size=30
    ).map("".join)
)
def test_any_text_keeps_its_tags(text: str) -> None:
    tags = re.compile(r"</?[bp]>")
    assert tags.findall(translated(text)) == tags.findall(text)


@pytest.mark.parametrize(
    "text",
    [
        "<b>" * 10_000 + "a" + "</b>" * 10_000,
        "<div>" * 10_000 + "a",
        "<b>a " * 5_000,
        "<" * 200_000,
        '<a "' * 50_000,
        '<a "' * 50_000 + '" <',
        "<!" * 100_000,
        "<!--" * 50_000,
        "</a" * 60_000,
        "<p translate=no>" * 10_000,
        "<b>a</i>" * 5_000,
        " " * 200_000 + "a",
    ],
    ids=range(12),
)
def test_malformed_markup_takes_linear_time(text: str) -> None:
    begin = time.monotonic()
    translated(text, same)
    assert time.monotonic() - begin < 5
