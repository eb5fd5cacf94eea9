"""Protected spans: text that a translation must carry over unchanged.

URLs, placeholders, tags, codes and the like have no translation. `find_spans` locates them,
`mask` puts one numbered symbol in place of each, and `restore` puts the spans back into the
translation, byte for byte. The symbols are pieces of both vocabularies (`SYMBOLS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex

from nmt.errors import NmtError
from nmt.text.span_kinds import ANY_KIND, KINDS, TRIGGER

MAX_SPANS = 10  # symbols in a vocabulary; a line with more spans is split
SYMBOLS = tuple(f"\u27e6{number}\u27e7" for number in range(MAX_SPANS))  # ⟦0⟧ … ⟦9⟧
_SYMBOL = regex.compile("\u27e6([0-9])\u27e7")

_SPACED_SYMBOL = regex.compile("\\s*(\u27e6[0-9]\u27e7)\\s*")
_SECONDS = 1.0  # for one user pattern on one line; bounds catastrophic backtracking
_MAX_DEPTH = 20  # of nested braces; deeper ones are text
# Inside braces: a name, a number, an ICU argument (`count, plural, …`) or a formula without Han.
_ARGUMENT = regex.compile(r"\s*[A-Za-z0-9_.\-\[\]]*\s*(?:[,:!|].*)?", regex.DOTALL)
_TRAILING = ".,;:!?'\""
_TAG_NAME = regex.compile(r"<(/?)([A-Za-z][A-Za-z0-9:_.\-]*)")
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
     "track", "wbr")
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of a line that must not change.

    Attributes:
        begin: its first character in the line.
        end: one past its last.
        kind: a key of `KINDS`, ``placeholder``, or ``user`` for a pattern of the user's.
        text: the characters themselves.
    """

    begin: int
    end: int
    kind: str
    text: str


@dataclass(frozen=True)
class Masked:
    """A line with a symbol in place of each span.

    Attributes:
        text: the line; its k-th span is ``SYMBOLS[k]``, without spaces around it.
        origins: for each character of `text` the begin and end of what it represents in the
            line: one character, or a whole span.
        spans: in the order of the line, at most `MAX_SPANS`.
    """

    text: str
    origins: list[tuple[int, int]]
    spans: tuple[Span, ...]


def compile_patterns(
    patterns: Iterable[str], name: str = "--protect-pattern"
) -> list[regex.Pattern[str]]:
    """Compile the user's patterns; `name` is the option or key, for messages.

    Raises:
        NmtError: not a regular expression, or one that matches the empty text.
    """
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(regex.compile(pattern))
        except regex.error as error:
            raise NmtError(f"{name} {pattern}: {error}") from None
        if compiled[-1].match("") is not None:
            raise NmtError(
                f"{name} {pattern}: it matches the empty text",
                "use + instead of *, or name at least one character",
            )
    return compiled


def find_spans(text: str, patterns: Sequence[regex.Pattern[str]] = ()) -> list[Span]:
    """Locate the protected spans of a line.

    Args:
        text: the line as its user wrote it, before normalisation.
        patterns: further patterns, which win over the built-in kinds.

    Returns:
        Spans in the order of the line, without overlap.

    Raises:
        NmtError: a pattern of the user's took longer than a second.
    """
    if not patterns and TRIGGER.search(text) is None:
        return []
    taken = [*_user_spans(text, patterns), *_brace_spans(text)]
    taken.sort(key=lambda span: (span.begin, -span.end))
    spans: list[Span] = []
    end = 0
    for span in taken:
        if span.begin >= end:
            spans += _built_in(text, end, span.begin)
            spans.append(span)
            end = span.end
    spans += _built_in(text, end, len(text))
    return spans


def mask(text: str, spans: Sequence[Span]) -> Masked:
    """Put a symbol in place of each span, and remove the spaces around it.

    Args:
        text: the line.
        spans: as `find_spans` returns them, at most `MAX_SPANS`.
    """
    parts: list[str] = []
    origins: list[tuple[int, int]] = []
    end = 0
    for symbol, span in zip(SYMBOLS, spans, strict=False):
        _add_text(parts, origins, text, end, span.begin, strip=(end > 0, True))
        parts.append(symbol)
        origins += [(span.begin, span.end)] * len(symbol)
        end = span.end
    _add_text(parts, origins, text, end, len(text), strip=(end > 0, False))
    return Masked("".join(parts), origins, tuple(spans))


def _add_text(
    parts: list[str],
    origins: list[tuple[int, int]],
    text: str,
    begin: int,
    end: int,
    strip: tuple[bool, bool],
) -> None:
    while strip[0] and begin < end and text[begin].isspace():
        begin += 1
    while strip[1] and begin < end and text[end - 1].isspace():
        end -= 1
    parts.append(text[begin:end])
    origins += [(at, at + 1) for at in range(begin, end)]


def mask_pair(src: str, trg: str, patterns: Sequence[regex.Pattern[str]] = ()) -> tuple[str, str]:
    """Replace the spans that both sides of a training pair have, as `mask` does for a source.

    Only spans that occur once on each side are replaced, the first `MAX_SPANS` of them.

    Args:
        src: normalised source.
        trg: normalised target.
        patterns: as for `find_spans`.
    """
    src_spans = find_spans(src, patterns)
    if not src_spans:
        return src, trg
    trg_spans = find_spans(trg, patterns)
    src_texts, trg_texts = [s.text for s in src_spans], [s.text for s in trg_spans]
    shared = [t for t in src_texts if src_texts.count(t) == 1 and trg_texts.count(t) == 1]
    shared = shared[:MAX_SPANS]
    if not shared:
        return src, trg
    numbers = {text: number for number, text in enumerate(shared)}
    return (
        space_source(_masked(src, [s for s in src_spans if s.text in numbers], numbers)),
        space_target(_masked(trg, [s for s in trg_spans if s.text in numbers], numbers)),
    )


def _masked(text: str, spans: list[Span], numbers: dict[str, int]) -> str:
    parts, end = [], 0
    for span in spans:
        parts += [text[end : span.begin], SYMBOLS[numbers[span.text]]]
        end = span.end
    return "".join(parts) + text[end:]


def space_source(text: str) -> str:
    """Remove the spaces around symbols: Chinese has none."""
    return _SPACED_SYMBOL.sub(r"\1", text)


def space_target(text: str) -> str:
    """Put one space before and after each symbol, none before punctuation that follows."""
    spaced = _SPACED_SYMBOL.sub(r" \1 ", text)
    return regex.sub(r" {2,}", " ", regex.sub(r"\s+(?=[.,;:!?)])", "", spaced)).strip()


def restore(text: str, spans: Sequence[Span]) -> str:
    """Put the spans back in place of their symbols, spaced as English is.

    Args:
        text: a translation that holds ``SYMBOLS[k]`` once for each span.
        spans: the spans of the source.
    """
    return restore_with_origins(text, spans)[0]


def restore_with_origins(text: str, spans: Sequence[Span]) -> tuple[str, list[int]]:
    """Return `restore`, and for each of its characters the index of its origin in `text`."""
    characters: list[str] = []
    origins: list[int] = []
    end = 0
    join_next = False  # whether the text after the last span follows without a space

    def add(begin: int, stop: int) -> None:
        while join_next and begin < stop and text[begin] == " ":
            begin += 1
        if text[begin : begin + 1] == " " and text[begin + 1 : begin + 2] in tuple(",.;:!?)"):
            begin += 1
        if begin < stop and _touch(characters, text[begin]):
            characters.append(" ")
            origins.append(begin)
        characters.extend(text[begin:stop])
        origins.extend(range(begin, stop))

    for match in _SYMBOL.finditer(text):
        number = int(match[1])
        if number >= len(spans):
            continue
        span = spans[number]
        add(end, match.start())
        if _joins_before(span) or "".join(characters[-2:]) in ("( ", "[ ", "\u201c "):
            while characters and characters[-1] == " ":
                characters.pop()
                origins.pop()
        if _touch(characters, span.text[0]):
            characters.append(" ")
            origins.append(match.start())
        characters.extend(span.text)
        origins.extend([match.start()] * len(span.text))
        join_next = _opens(span)
        end = match.end()
    add(end, len(text))
    return "".join(characters), origins


def order_table(spans: Sequence[Span]) -> list[int]:
    """Which symbols may follow, by the set of symbols already written.

    Tags nest in the translation as they do in the source: an element opens after the element
    around it, closes before it, and its siblings don't overlap with it. Other spans are free.

    Returns:
        For each set of used symbols, as a bit mask, the bit mask of allowed ones; `2**spans`.
    """
    pairs = _tag_pairs(spans)
    table = []
    for used in range(1 << len(spans)):
        allowed = 0
        for number in range(len(spans)):
            if not used >> number & 1 and _may_follow(number, used, pairs):
                allowed |= 1 << number
        table.append(allowed)
    return table


def _may_follow(number: int, used: int, pairs: list[tuple[int, int]]) -> bool:
    for begin, end in pairs:
        if number == end:  # after its opening tag, and after all that the element holds
            inside = [n for pair in pairs if begin < pair[0] and pair[1] < end for n in pair]
            return all(used >> n & 1 for n in (begin, *inside))
        if number == begin:
            for other_begin, other_end in pairs:
                is_open = bool(used >> other_begin & 1) and not used >> other_end & 1
                around = other_begin < begin and end < other_end
                if is_open != around and (is_open or around):
                    return False
    return True


def _tag_pairs(spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Numbers of the opening and closing tags that belong together, innermost first."""
    pairs, stack = [], []
    for number, span in enumerate(spans):
        if span.kind != "tag" or not (match := _TAG_NAME.match(span.text)):
            continue
        name = match[2].lower()
        if not match[1]:
            if not span.text.endswith("/>") and name not in _VOID:
                stack.append((number, name))
        elif any(opened == name for _, opened in stack):
            while stack[-1][1] != name:
                stack.pop()
            pairs.append((stack.pop()[0], number))
    return pairs


def _user_spans(text: str, patterns: Sequence[regex.Pattern[str]]) -> list[Span]:
    spans = []
    for pattern in patterns:
        try:
            for match in pattern.finditer(text, timeout=_SECONDS):
                if match.end() > match.start():
                    spans.append(Span(match.start(), match.end(), "user", match[0]))
        except TimeoutError:
            raise NmtError(
                f"--protect-pattern {pattern.pattern}: took more than {_SECONDS:g} s on one line",
                "avoid nested repetition such as (a+)+",
            ) from None
    return spans


def _brace_spans(text: str) -> list[Span]:
    """Find ``{name}``, ``{{name}}``, ``${name}`` and ICU arguments, with balanced braces."""
    spans: list[Span] = []
    begins: list[int] = []
    for match in regex.finditer(r"[{}]", text):
        at = match.start()
        if match[0] == "{":
            begins.append(at)
        elif begins:
            begin = begins.pop()
            if begins and len(begins) < _MAX_DEPTH:
                continue  # an inner argument; the outermost braces decide
            inner = text[begin + 1 : at]
            if _is_argument(inner):
                begin -= begin > 0 and text[begin - 1] in "$%#"
                spans.append(Span(begin, at + 1, "placeholder", text[begin : at + 1]))
    return spans


def _is_argument(inner: str) -> bool:
    while inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1]
    return bool(inner.strip()) and _ARGUMENT.fullmatch(inner) is not None


def _built_in(text: str, begin: int, end: int) -> list[Span]:
    spans = []
    for match in ANY_KIND.finditer(text, begin, end):
        kind = next(name for name in KINDS if match[name] is not None)
        stop = match.end()
        if kind == "url":
            stop = _end_of_url(text, match.start(), stop)
        spans.append(Span(match.start(), stop, kind, text[match.start() : stop]))
    return spans


def _end_of_url(text: str, begin: int, end: int) -> int:
    """Leave out punctuation that ends the sentence, and a bracket opened before the URL."""
    opened = text.count("(", begin, end)
    closed = text.count(")", begin, end)
    while end > begin + 1:
        if text[end - 1] in _TRAILING:
            end -= 1
        elif text[end - 1] == ")" and closed > opened:
            end, closed = end - 1, closed - 1
        else:
            break
    return end


def _touch(characters: list[str], following: str) -> bool:
    """Whether a word would run into the next one."""
    return bool(characters) and characters[-1].isalnum() and following.isalnum()


def _opens(span: Span) -> bool:
    match = _TAG_NAME.match(span.text) if span.kind == "tag" else None
    return match is not None and not match[1] and not span.text.endswith("/>")


def _joins_before(span: Span) -> bool:
    return span.kind == "entity" or (span.kind == "tag" and not _opens(span))
