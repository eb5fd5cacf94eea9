"""Protected spans: what is found, masked and restored."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.errors import NmtError
from nmt.text.spans import (
    MAX_SPANS,
    SYMBOLS,
    Span,
    compile_patterns,
    find_spans,
    mask,
    order_table,
    restore,
)

FOUND = [
    ("请访问 https://example.com/a?b=1 下载", ["https://example.com/a?b=1"]),
    ("请访问https://example.com/a?b=1下载。", ["https://example.com/a?b=1"]),
    ("（见 https://example.com/a_(b)）。", ["https://example.com/a_(b)"]),
    ("(见 http://example.com/x).", ["http://example.com/x"]),
    ("她的电话号码是13800138000", ["13800138000"]),
    ("发邮件到li.lei+a@mail.example.com吧", ["li.lei+a@mail.example.com"]),
    ("打开{name}，%(name)d 和 %1$s、%s、%.2f。", ["{name}", "%(name)d", "%1$s", "%s", "%.2f"]),
    ("${x}、{{y}}、$t(key.sub)、%{count}", ["${x}", "{{y}}", "$t(key.sub)", "%{count}"]),
    ("{count, plural, one {# 个} other {# 个文件}}好",
     ["{count, plural, one {# 个} other {# 个文件}}"]),
    ('<b>重要</b>：<a href="x y">这里</a>&nbsp;。',
     ["<b>", "</b>", '<a href="x y">', "</a>", "&nbsp;"]),
    ("型号X-200B，版本v2.6.0，还有2.6.0-rc1", ["X-200B", "v2.6.0", "2.6.0-rc1"]),
    ("2024-05-01 12:30 开会，到13:45", ["2024-05-01 12:30", "13:45"]),
    ("用`pip install x`安装", ["`pip install x`"]),
    ("看 /etc/passwd 和 C:\\Users\\me\\a.txt 和 src/main.c",
     ["/etc/passwd", "C:\\Users\\me\\a.txt", "src/main.c"]),
    ("#春节快乐# 和 #topic 告诉@li_lei明天来", ["#春节快乐#", "#topic", "@li_lei"]),
    ("好👍🏽吗👨‍👩‍👧", ["👍🏽", "👨‍👩‍👧"]),
    ("调用 foo_bar() 和 os.path.join", ["foo_bar()", "os.path.join"]),
    ("符号⟦3⟧是你的", ["⟦3⟧"]),
    ("<!-- 注 --><b>好</b>", ["<!-- 注 -->", "<b>", "</b>"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), FOUND)
def test_spans_of_each_kind_are_found(line: str, expected: list[str]) -> None:
    spans = find_spans(line)
    assert [span.text for span in spans] == expected
    assert all(line[span.begin : span.end] == span.text for span in spans)


@pytest.mark.parametrize(
    "line",
    [
        "1.5亿元",
        "3万人",
        "我25岁",
        "重25kg",
        "100000万",
        "二十五",
        "下午3点",
        "和/或",
        "100%的人",
        "{他说}",
        "a < b > c",
    ],
)
def test_words_amounts_and_plain_punctuation_are_not_spans(line: str) -> None:
    assert find_spans(line) == []


def test_a_pattern_of_the_user_wins_over_the_built_in_kinds() -> None:
    patterns = compile_patterns([r"工单[A-Z]+-\d+"])
    assert [s.text for s in find_spans("见工单AB-12345", patterns)] == ["工单AB-12345"]


@pytest.mark.parametrize("pattern", ["(", "a*", ""])
def test_a_pattern_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(NmtError, match="--protect-pattern"):
        compile_patterns([pattern])


def test_a_pattern_that_backtracks_without_end_is_refused() -> None:
    patterns = compile_patterns([r"(a|aa)+$"])
    with pytest.raises(NmtError, match="took more than"):
        find_spans("a" * 5000 + "b", patterns)


@pytest.mark.parametrize(
    "text",
    ["{" * 10000, "<" * 10000, "`" * 10000, "a_" * 5000, "1," * 5000, "a@" * 5000, "/a" * 5000,
     "<a " * 4000, "%" * 10000, "😀" * 5000, "a-" * 5000, "a." * 5000, "&#1" * 3000,
     "1.1" * 3000, "{a" * 3000 + "}" * 3000,
     "http://" + "a" * 10000],
)  # fmt: skip
def test_a_hostile_line_takes_less_than_a_second(text: str) -> None:
    begin = time.process_time()
    find_spans(text)
    assert time.process_time() - begin < 1.0


@settings(max_examples=300)
@given(st.text(st.sampled_from("我你 {}<>/b%s`_-.:@#&;0123456789ahtp()⟦⟧万😀\u200d"), max_size=80))
def test_masked_text_restores_to_the_line(line: str) -> None:
    spans = find_spans(line)
    for begin in range(0, len(spans), MAX_SPANS):
        part = spans[begin : begin + MAX_SPANS]
        masked = mask(line, part)
        restored = restore(masked.text, part)
        assert "".join(restored.split()) == "".join(line.split()) or len(spans) > MAX_SPANS
        for number, span in enumerate(part):
            assert masked.text.count(SYMBOLS[number]) >= 1
            assert span.text in restored


@pytest.mark.parametrize(
    ("translation", "source", "expected"),
    [
        (
            "Visit ⟦0⟧ to download .",
            "请访问 https://e.com/a",
            "Visit https://e.com/a to download .",
        ),
        ("⟦0⟧ Important ⟦1⟧ notice.", "<b>重要</b>通知。", "<b>Important</b> notice."),
        ("Open ⟦0⟧ , please.", "请打开 a.txt", "Open a.txt, please."),
    ],
)
def test_restored_spans_are_spaced_as_english(translation: str, source: str, expected: str) -> None:
    assert restore(translation, find_spans(source)) == expected


def orders(table: list[int], count: int) -> list[list[int]]:
    """All orders of the symbols that the table allows."""
    complete = []
    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        used, order = stack.pop()
        if len(order) == count:
            complete.append(order)
        stack += [(used | 1 << n, [*order, n]) for n in range(count) if table[used] >> n & 1]
    return sorted(complete)


def test_tags_nest_in_every_allowed_order_and_other_spans_are_free() -> None:
    spans = find_spans("<a><b>好</b></a>%s")
    assert [span.text for span in spans] == ["<a>", "<b>", "</b>", "</a>", "%s"]
    allowed = orders(order_table(spans), 5)
    without = {tuple(n for n in order if n != 4) for order in allowed}
    assert without == {(0, 1, 2, 3)}
    assert len(allowed) == 5  # %s at any place

    siblings = find_spans("<a>一</a>和<b>二</b>")
    assert orders(order_table(siblings), 4) == [[0, 1, 2, 3], [2, 3, 0, 1]]


@given(st.lists(st.sampled_from(["<a>", "</a>", "<b>", "</b>", "<br/>", "%s"]), max_size=6))
def test_no_set_of_used_symbols_is_a_dead_end(texts: list[str]) -> None:
    kinds = {"%s": "placeholder"}
    spans = [Span(n, n + 1, kinds.get(text, "tag"), text) for n, text in enumerate(texts)]
    table = order_table(spans)
    full = (1 << len(spans)) - 1
    reached, frontier = {0}, [0]
    while frontier:
        used = frontier.pop()
        assert used == full or table[used]
        for number in range(len(spans)):
            after = used | 1 << number
            if table[used] >> number & 1 and after not in reached:
                reached.add(after)
                frontier.append(after)
