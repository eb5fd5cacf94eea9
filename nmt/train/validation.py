"""Validation: translate dev with beam search and score it as ``nmt evaluate`` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch

from nmt.distributed import Workers
from nmt.evaluate.metrics import score
from nmt.model import Seq2Seq
from nmt.run.directory import Run
from nmt.train.start import further_dev_sets
from nmt.translate.translator import Translator

T = TypeVar("T")


@dataclass(frozen=True)
class Validated:
    """What came out.

    Attributes:
        bleu: dev BLEU, 0 to 100.
        chrf: dev chrF2, 0 to 100.
        signature: sacreBLEU signature of the BLEU.
        sentences: number of sentences scored.
        samples: some dev sentences with translation and reference, always the same ones.
        also: BLEU and chrF2 of the sets of ``train.also_validate`` by name.
    """

    bleu: float
    chrf: float
    signature: str
    sentences: int
    samples: list[dict[str, str]]
    also: dict[str, dict[str, float]] = field(default_factory=dict)


class Validation:
    """Translate and score sentences of a run's dev set.

    Args:
        model: the model to validate, with its weights at the time of `validate`.
        run: has the dev set, the tokenizers and the search configuration.
        device: of the model.
        workers: each translates its share; all return the same scores.
    """

    def __init__(self, model: Seq2Seq, run: Run, device: torch.device, workers: Workers) -> None:
        config = run.config
        self.workers = workers
        self.translator = Translator(
            model, run.src, run.trg, config.search, device, config.data.clean.max_pieces,
            usual=run.info.length_statistics,
        )  # fmt: skip
        pairs = list(zip(run.text("dev", "src"), run.text("dev", "trg"), strict=True))
        chosen = evenly_spread(pairs, config.train.validate_sentences)
        self.src, self.trg = [src for src, _ in chosen], [trg for _, trg in chosen]
        self.log_samples = config.train.log_samples
        self.further = {
            name: evenly_spread(list(zip(*texts, strict=True)), config.train.validate_sentences)
            for name, texts in further_dev_sets(run).items()
        }

    def validate(self) -> Validated:
        """Translate and score the dev sentences."""
        part = self.translator.translate(self.workers.shard(self.src))
        translations = self.workers.gather([translation.text for translation in part])
        scores = {metric.name: metric for metric in score(translations, [self.trg])}
        samples = [
            {"source": src, "translation": text, "reference": ref}
            for src, text, ref in zip(self.src, translations, self.trg, strict=True)
        ]
        return Validated(
            scores["BLEU"].value,
            scores["chrF2"].value,
            scores["BLEU"].signature,
            len(self.src),
            evenly_spread(samples, self.log_samples),
            {name: self._score(further) for name, further in self.further.items()},
        )

    def _score(self, pairs: list[tuple[str, str]]) -> dict[str, float]:
        """Translate and score a further dev set."""
        part = self.translator.translate(self.workers.shard([src for src, _ in pairs]))
        translations = self.workers.gather([translation.text for translation in part])
        scores = {s.name: s.value for s in score(translations, [[trg for _, trg in pairs]])}
        return {"bleu": round(scores["BLEU"], 2), "chrf": round(scores["chrF2"], 2)}


def evenly_spread(items: list[T], max_items: int) -> list[T]:
    """Return at most `max_items` of `items`, evenly spaced and in order.

    Many corpora are sorted by length or difficulty, so the first items would be too easy.
    """
    count = min(max_items, len(items))
    return [items[i * len(items) // count] for i in range(count)]
