"""One line in, one line out, and the same translation whatever its neighbours are."""

from __future__ import annotations

import copy
import itertools
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nmt.config.schema import ModelConfig, SearchConfig
from nmt.data.lengths import LengthStatistics
from nmt.data.tokenizer import Tokenizer, train_tokenizer
from nmt.errors import NmtError
from nmt.model import Seq2Seq
from nmt.symbols import SPACE_MARK
from nmt.text.normalise import normalise
from nmt.translate.search import Hypothesis
from nmt.translate.segment import SENTENCE
from nmt.translate.translator import Translator
from nmt.translate.types import Translation

CHINESE = [
    "我爱中国。", "今天天气很好。", "他每天早上六点起床。", "你去过北京吗？", "這本書很有意思。",
    "我们明天去看电影，好不好？", "她喜欢喝茶，不喜欢喝咖啡。", "火车站在哪里？", "我有3个苹果。",
    "老师说：「请坐。」", "雨下得很大，我们回家吧！", "这是２０２５年的事。",
    "小狗在花园里跑来跑去。",
    "我不知道他叫什么名字。", "请给我一杯水。", "学校离我家很远。",
]  # fmt: skip
ENGLISH = [
    "I love China.", "The weather is nice today.", "He gets up at six every morning.",
    "Have you ever been to Beijing?", "This book is interesting.", "Can we see a film tomorrow?",
    "She likes tea and does not like coffee.", "Where is the station?", "I have 3 apples.",
    "The teacher said: \"Please sit down.\"", "It rains hard, let us go home!",
    "That was in 2025.", "The puppy runs about in the garden.", "I do not know his name.",
    "A glass of water, please.", "The school is far from my home.",
]  # fmt: skip
# Unusual single lines.
ODD = [
    "", " ", "\u3000", "\t", "\x00", "a\u2028b", "我\r爱", "\u200b", "👍🏽\u200d👧", "\ue000\ue001",
    "\U000e0fff", "only English here", "12345", "。。。", "?!", "龘龘龘", "ﬁ①㈱", "e\u0301\u0301",
    "\u202eabc", "\x85", "我爱中国\x0c",
]  # fmt: skip


def tokenizer(lines: list[str], *, simplify: bool) -> Tokenizer:
    trained, _ = train_tokenizer(
        [normalise(line, simplify=simplify) for line in lines],
        vocab=500, simplify=simplify, character_coverage=1.0, space_first=not simplify, name="test",
    )  # fmt: skip
    return trained


@pytest.fixture(scope="module")
def translator() -> Iterator[Translator]:
    """Random weights, large enough for sharp choices; sentences of more than 12 pieces split."""
    src, trg = tokenizer(CHINESE * 3, simplify=True), tokenizer(ENGLISH * 3, simplify=False)
    torch.manual_seed(11)
    model = Seq2Seq(
        len(src),
        len(trg),
        ModelConfig(
            attention="additive",
            embedding_dim=12,
            encoder_hidden=10,
            encoder_layers=1,
            decoder_hidden=16,
            attention_hidden=14,
            dropout=0.3,
            word_dropout=0.2,
        ),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6)
    search = SearchConfig(beam=4, length_penalty=0.8, max_ratio=1.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Translator(model.eval(), src, trg, search, torch.device("cpu"), max_pieces=12)
    torch.set_num_threads(threads)


def assert_equal(ours: list[Translation], theirs: list[Translation]) -> None:
    assert [t.source for t in ours] == [t.source for t in theirs]
    assert [t.text for t in ours] == [t.text for t in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert [p.hypotheses[0].ids for p in a.parts] == [p.hypotheses[0].ids for p in b.parts]
        assert a.score == pytest.approx(b.score, rel=1e-4, abs=1e-4)


def test_translations_do_not_depend_on_batch_size_and_order(translator: Translator) -> None:
    lines = [*CHINESE, *ODD, "".join(CHINESE[:6]), *(a + b for a in CHINESE for b in CHINESE[:4])]
    expected = translator.translate(lines, batch_size=64)
    for batch_size in (1, 7):
        assert_equal(translator.translate(lines, batch_size=batch_size), expected)
    order = list(range(len(lines)))
    random.Random(1).shuffle(order)
    shuffled = translator.translate([lines[i] for i in order], batch_size=7)
    assert_equal([shuffled[order.index(i)] for i in range(len(lines))], expected)
    assert len({t.text for t in expected}) > len(
        CHINESE
    )  # the translations differ, so the comparison is meaningful


def test_translations_do_not_depend_on_the_number_of_threads(translator: Translator) -> None:
    single = translator.translate(CHINESE)
    torch.set_num_threads(2)
    try:
        threaded = translator.translate(CHINESE)
    finally:
        torch.set_num_threads(1)
    assert_equal(single, threaded)


def test_batches_are_searched_in_parallel_threads(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = CHINESE * 4
    expected = translator.translate(lines, batch_size=8)
    searched: list[tuple[str, int, int]] = []
    search, meet, turn = Translator._search, threading.Barrier(2), itertools.count()

    def noted(
        self: Translator, members: Any, sources: list[list[int]], tables: Any, n_best: int
    ) -> list[list[Hypothesis]]:
        early = next(turn) < 2
        searched.append((threading.current_thread().name, torch.get_num_threads(), len(sources)))
        if early:
            meet.wait(30)  # fails unless two batches are searched at the same time
        return search(self, members, sources, tables, n_best)

    monkeypatch.setattr(Translator, "_search", noted)
    torch.set_num_threads(3)
    try:
        assert_equal(translator.translate(lines, batch_size=8), expected)
        assert torch.get_num_threads() == 3  # restored
    finally:
        torch.set_num_threads(1)
    assert threading.main_thread().name not in {name for name, _, _ in searched}
    assert {threads for _, threads, _ in searched} == {1}
    assert sum(size for _, _, size in searched) == len(lines)


def test_n_lines_in_are_n_lines_out(translator: Translator) -> None:
    lines = [line for pair in zip(ODD, CHINESE * 2, strict=False) for line in pair]
    translations = translator.translate(lines)
    assert [t.source for t in translations] == lines
    for translation in translations:
        assert "\n" not in translation.text
        assert "\r" not in translation.text
        assert bool(translation.parts) == bool(translator.src.encode(translation.source))
    for blank in translator.translate(["", " ", "\u3000", "\u200b"]):
        assert blank.text == ""
        assert blank.score == 0
        assert blank.parts == []


def test_no_lines_give_no_translations(translator: Translator) -> None:
    assert translator.translate([]) == []


@settings(max_examples=25, deadline=None)
@example(lines=["00¸»»»"])  # a space that is spelled in bytes
@given(
    lines=st.lists(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=30),
        max_size=8,
    )
)
def test_any_text_gives_single_lines(translator: Translator, lines: list[str]) -> None:
    translations = translator.translate(lines, batch_size=3)
    assert [t.source for t in translations] == lines
    for translation in translations:
        assert not set(translation.text) & {SPACE_MARK, "\ufffd", "\n", "\r", "\u2028"}
        assert not any(s in translation.text for s in ("<unk>", "<s>", "</s>", "<pad>"))
        assert translation.text == translation.text.strip()


def test_a_stream_yields_before_all_input_is_read(translator: Translator) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield CHINESE[read % len(CHINESE)]

    stream = translator.stream(endless(), batch_size=64)
    assert next(stream).source == CHINESE[1]
    assert read < 10_000


def test_a_long_line_is_split_at_its_sentence_ends(translator: Translator) -> None:
    line = "".join(CHINESE)
    (translation,) = translator.translate([line])
    parts = [part.source for part in translation.parts]
    assert len(parts) > 3
    assert "".join(parts) == line
    assert all(len(translator.src.encode(part)) <= translator.max_pieces for part in parts)
    ends = [part for part in parts if part[-1] in "。！？」"]
    assert len(ends) >= len(parts) - 4  # only sentences too long by themselves are cut elsewhere
    alone = translator.translate(parts)
    assert translation.text == " ".join(t.text for t in alone if t.text)


@pytest.mark.parametrize("closing", [*"”’」』】》〉〕］｝）)]}＂", "。」", "”）"])
def test_a_closing_bracket_stays_with_its_sentence(closing: str) -> None:
    sentences = [f"我爱你。{closing}", "他来了！"]
    assert SENTENCE.findall("".join(sentences)) == sentences


def test_a_line_without_sentence_ends_is_split_at_the_limit(translator: Translator) -> None:
    for character in ("我", "龘", "a", "♪", "\u0327"):
        (translation,) = translator.translate([character * 200])
        assert len(translation.parts) > 1
        assert "".join(part.source for part in translation.parts) == character * 200
        for part in translation.parts:
            assert len(translator.src.encode(part.source)) <= translator.max_pieces


def test_n_best_are_different_and_begin_with_the_best(translator: Translator) -> None:
    single = translator.translate(CHINESE)
    for one, many in zip(single, translator.translate(CHINESE, n_best=4), strict=True):
        for part, parts in zip(one.parts, many.parts, strict=True):
            ids = [tuple(h.ids) for h in parts.hypotheses]
            assert len(set(ids)) == 4
            assert parts.hypotheses[0].score >= part.hypotheses[0].score - 1e-5


def test_translating_does_not_change_the_model(translator: Translator) -> None:
    translator.model.train()
    try:
        assert_equal(translator.translate(CHINESE[:3]), translator.translate(CHINESE[:3]))
        assert translator.model.training
    finally:
        translator.model.eval()


def test_candidates_of_a_line_in_parts_are_the_best_combinations(translator: Translator) -> None:
    (translation,) = translator.translate(["".join(CHINESE[:4])], n_best=4)
    assert len(translation.parts) > 1
    sums = [
        sum(h.score for h in combination)
        for combination in itertools.product(*(p.hypotheses for p in translation.parts))
    ]
    expected = sorted(sums, reverse=True)[:4]
    assert [c.score for c in translation.candidates] == pytest.approx(expected, abs=1e-4)
    assert translation.candidates[0].text == translation.text
    assert translation.score == translation.candidates[0].score
    assert translation.log_prob == pytest.approx(translation.candidates[0].log_prob)


def test_more_candidates_than_the_beam_size_are_refused(translator: Translator) -> None:
    with pytest.raises(NmtError, match="n_best 5 is larger than the beam 4"):
        translator.translate(["我"], n_best=5)
    for numbers in ({"batch_size": 0}, {"n_best": 0}):
        with pytest.raises(NmtError, match="at least 1 each"):
            translator.translate(["我"], **numbers)


def test_the_alignment_of_a_line_in_parts_covers_the_line(translator: Translator) -> None:
    line = " ".join(CHINESE[:5])
    (translation,) = translator.translate([line])
    assert [line[p.begin : p.begin + len(p.source)] for p in translation.parts] == [
        p.source for p in translation.parts
    ]
    alignment = translation.attention_map
    assert alignment.characters == list(line)
    assert " ".join(alignment.words) == translation.text
    assert alignment.weights.sum(axis=1) == pytest.approx(1.0, abs=1e-4)


def test_a_line_longer_than_typical_is_translated_by_sentences(translator: Translator) -> None:
    lines = ["".join(CHINESE[:2]), CHINESE[2], "我爱你。他！"]
    translator.usual = LengthStatistics(typical=6, ratio=(0.5, 2.0))
    try:
        parts = [[p.source for p in t.parts] for t in translator.translate(lines)]
    finally:
        translator.usual = None
    assert parts == [CHINESE[:2], [CHINESE[2]], ["我爱你。他！"]]


def test_halves_of_surrogate_pairs_become_question_marks(translator: Translator) -> None:
    broken, whole = translator.translate(["我\ud83d爱", "我?爱"])
    assert broken.source == "我\ud83d爱"
    assert broken.text == whole.text


def test_eight_bit_integers_do_not_depend_on_the_batch(translator: Translator) -> None:
    small = Translator(
        translator.model, translator.src, translator.trg, translator.search,
        translator.device, translator.max_pieces, int8=True,
    )  # fmt: skip
    expected = small.translate(CHINESE, batch_size=64)
    for batch_size in (1, 7):
        assert_equal(small.translate(CHINESE, batch_size=batch_size), expected)


def test_eight_bit_integers_need_the_cpu(translator: Translator) -> None:
    with pytest.raises(NmtError, match="--int8 runs on the CPU only"):
        Translator(
            translator.model, translator.src, translator.trg, translator.search,
            torch.device("cuda"), 12, int8=True,
        )  # fmt: skip


def test_changed_weights_are_used_unless_frozen(translator: Translator) -> None:
    parts = (translator.src, translator.trg, translator.search, translator.device, 12)
    model = copy.deepcopy(translator.model)
    live, frozen = Translator(model, *parts), Translator(model, *parts, frozen=True)
    before = [t.text for t in live.translate(CHINESE)]
    assert [t.text for t in frozen.translate(CHINESE)] == before
    with torch.no_grad():
        model.decoder.output_bias.normal_(std=3.0)
    assert [t.text for t in live.translate(CHINESE)] != before
    assert [t.text for t in frozen.translate(CHINESE)] == before
