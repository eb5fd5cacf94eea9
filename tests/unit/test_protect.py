"""Protected spans in the translator: each occurs once, byte for byte, whatever the network."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config.schema import ModelConfig, SearchConfig
from nmt.data.tokenizer import train_tokenizer
from nmt.model import Seq2Seq
from nmt.symbols import BOS, EOS
from nmt.text.spans import MAX_SPANS, SYMBOLS, find_spans, order_table
from nmt.translate.constraints import SpanConstraints
from nmt.translate.protect import split_line
from nmt.translate.search import beam_search
from nmt.translate.translator import Translator

CHINESE = [
    "我爱中国的山水。",
    "请访问网站下载文件，谢谢！",
    "他在楼上，我在楼下。",
    "打开设置，点这里。",
]
ENGLISH = ["I love the hills of China.", "Please visit the site to download the file, thanks!",
           "He is upstairs, I am downstairs.", "Open the settings, click here."]  # fmt: skip
SPANS = [
    "https://example.com/a?b=1&c=2", "a.b@example.com", "/etc/passwd", "`rm -rf x`", "%s",
    "%(name)d", "{name}", "{{x}}", "${x}", "$t(a.b)", "{n, plural, one {#} other {#}}", "<br/>",
    "&amp;", "X-200B", "v2.6.0", "#topic", "@li_lei", "👍🏽", "13800138000", "2024-05-01", "12:30",
]  # fmt: skip


def build_model(src_vocab: int, trg_vocab: int) -> Seq2Seq:
    """A small network with weights large enough for its choices to be sharp."""
    config = ModelConfig(
        embedding_dim=6, encoder_hidden=5, decoder_hidden=8, attention_hidden=7, dropout=0.3,
    )  # fmt: skip
    model = Seq2Seq(src_vocab, trg_vocab, config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


@pytest.fixture(scope="module")
def translator() -> Translator:
    """An untrained network: it has no reason to write any symbol."""
    sides = []
    for side, lines in enumerate((CHINESE, ENGLISH)):
        tokenizer, _ = train_tokenizer(
            lines * 20, vocab=360, simplify=side == 0, character_coverage=1.0,
            space_first=side == 1, name="test",
        )  # fmt: skip
        sides.append(tokenizer)
    torch.manual_seed(5)
    model = build_model(len(sides[0]), len(sides[1]))
    search = SearchConfig(beam=3, max_ratio=1.0)
    return Translator(model, *sides, search, torch.device("cpu"), 60, frozen=True)


def generated_lines(count: int, seed: int) -> list[tuple[str, list[str]]]:
    """Lines with one to four spans each, of all kinds."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        spans = draw.sample(SPANS, draw.randint(1, 4))
        words = draw.choices(["请访问", "下载", "文件", "他在楼上", "，", "我爱", "的", " "], k=8)
        for span in spans:
            words.insert(draw.randint(0, len(words)), f" {span} ")
        lines.append(("".join(words), spans))
    return lines


def test_every_span_of_generated_lines_occurs_once(translator: Translator) -> None:
    lines = generated_lines(300, seed=1)
    results = translator.translate([line for line, _ in lines])
    for (line, spans), result in zip(lines, results, strict=True):
        for span in spans:
            assert result.text.count(span) == line.count(span), (line, result.text)
        assert not any(symbol in result.text for symbol in SYMBOLS)


def test_tags_of_a_translation_are_nested(translator: Translator) -> None:
    (result,) = translator.translate(["<b>我爱</b>中国，<i>他在<u>楼上</u></i>。"])
    tags = [span.text for span in find_spans(result.text) if span.kind == "tag"]
    open_tags = []
    for tag in tags:
        if tag.startswith("</"):
            assert open_tags.pop() == tag[2:-1]
        else:
            open_tags.append(tag[1:-1])
    assert sorted(tags) == sorted(["<b>", "</b>", "<i>", "<u>", "</u>", "</i>"])


def test_more_spans_than_symbols_are_all_kept(translator: Translator) -> None:
    numbers = [str(10000 + n) for n in range(35)]
    (result,) = translator.translate(["我爱" + "和 ".join(numbers)])
    assert [result.text.count(number) for number in numbers] == [1] * 35


def test_a_long_span_and_symbols_in_the_users_text_come_back(translator: Translator) -> None:
    url = "https://example.com/" + "a" * 10000
    first, second = translator.translate([f"请访问 {url} 下载", "符号⟦3⟧和⟦0⟧"])
    assert url in first.text
    assert sorted(s.text for s in find_spans(second.text)) == ["⟦0⟧", "⟦3⟧"]


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_no_line_of_unicode_crashes(translator: Translator, line: str) -> None:
    (result,) = translator.translate([line])
    for word, weights in zip(result.attention_map.words, result.attention_map.weights, strict=True):
        assert word
        assert len(weights) == len(line)


def test_the_batch_does_not_change_a_constrained_translation(translator: Translator) -> None:
    lines = [line for line, _ in generated_lines(12, seed=2)] + CHINESE
    together = [result.text for result in translator.translate(lines)]
    assert [translator.translate([line])[0].text for line in lines] == together


def test_lines_without_spans_are_translated_as_without_protection(translator: Translator) -> None:
    protected = translator.translate(CHINESE)
    translator.protect(None)
    try:
        plain = translator.translate(CHINESE)
    finally:
        translator.protect(())
    for left, right in zip(protected, plain, strict=True):
        assert (left.text, left.score) == (right.text, right.score)


def test_words_of_the_attention_map_are_the_words_of_the_text(translator: Translator) -> None:
    for line, _ in generated_lines(40, seed=3):
        (result,) = translator.translate([line])
        assert result.attention_map.words == result.text.split()
        sums = result.attention_map.weights.sum(axis=1)
        assert sums.max() < 1.001


def test_a_pattern_of_the_user_is_protected(translator: Translator) -> None:
    translator.protect(["中国"])
    try:
        (result,) = translator.translate(["我爱中国的山水。"])
    finally:
        translator.protect(())
    assert result.text.count("中国") == 1


def test_without_symbols_in_the_vocabulary_spans_stay_in_place(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translator, "_symbols", [])
    line = "我爱 %s 的山水，https://example.com/a 下载"
    (result,) = translator.translate([line])
    assert result.text.index("%s") < result.text.index("https://example.com/a")
    assert result.text.count("%s") == result.text.count("https://example.com/a") == 1


def test_sections_of_a_line_add_up_to_it() -> None:
    def halves(text: str) -> list[tuple[int, str]]:
        middle = len(text) // 2
        return [(0, text[:middle]), (middle, text[middle:])]

    for line, _ in generated_lines(100, seed=4):
        sections = list(split_line(line, (), lambda t: iter(halves(t)), has_symbols=True))
        assert "".join(section.text for section in sections) == line
        for section in sections:
            assert len(section.spans) <= MAX_SPANS
            assert line[section.begin : section.begin + len(section.text)] == section.text
            for span in section.spans:
                assert section.text[span.begin : span.end] == span.text


@pytest.mark.parametrize("line", ["%s<a>", "<a></a>"])
def test_a_beam_as_wide_as_the_tree_is_brute_force_over_the_allowed_sequences(line: str) -> None:
    torch.manual_seed(3)
    model = build_model(9, 8).eval()
    symbols, limit = [4, 5], 4
    table = order_table(find_spans(line))
    src = torch.tensor([[4, 6, 5, 7]])
    mask = torch.ones_like(src, dtype=torch.bool)
    limits = torch.tensor([limit])
    constraints = SpanConstraints(symbols, [table], limits, src.device)
    (results,) = beam_search(
        model, src, mask, beam=4000, alpha=0.0, max_lengths=limits, n_best=4000,
        constraints=constraints,
    )  # fmt: skip
    expected = {}
    for length in range(1, limit + 1):
        for ids in itertools.product([4, 5, 6, 7], repeat=length):
            used = 0
            for id_ in ids:
                if id_ in symbols:
                    bit = 1 << symbols.index(id_)
                    if not table[used] & bit:
                        break
                    used |= bit
            else:
                if used == len(table) - 1:
                    expected[ids] = log_probability(model, src, mask, ids)
    assert {tuple(h.ids) for h in results} == set(expected)
    for hypothesis in results:
        assert hypothesis.log_prob == pytest.approx(expected[tuple(hypothesis.ids)], abs=1e-4)


@torch.no_grad()
def log_probability(
    model: Seq2Seq, src: torch.Tensor, mask: torch.Tensor, ids: tuple[int, ...]
) -> float:
    """Teacher-forced log-probability of a translation, EOS counted."""
    trg_in = torch.tensor([[BOS, *ids]])
    features, _ = model(src, mask, trg_in)
    log_probs = torch.log_softmax(model.decoder.logits(features).float(), dim=-1)[0]
    return float(sum(log_probs[n, id_] for n, id_ in enumerate((*ids, EOS))))
