"""The training loop. `train` reads top to bottom.

Everything random in an update is drawn from (seed, update), and the batches of an epoch
from (seed, epoch): where training stands is two numbers, and going on after a stop gives
the same bytes as not having stopped.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nmt.batches import Indices, make_batch, plan_epoch
from nmt.checkpoint import Run, open_corpus
from nmt.config import Config
from nmt.corpus import PackedSet
from nmt.errors import NmtError
from nmt.evaluate.metrics import score
from nmt.prepare.pipeline import load_manifest
from nmt.runtime import Stop, choose_device, say, stopping_on_signals, warn
from nmt.text import file_sha256
from nmt.train.journal import Journal, environment
from nmt.train.loss import batch_loss
from nmt.train.schedule import learning_rate
from nmt.translate.translator import Translator

# Keys that may change between parts of one training: how long, how often, where.
SAFE_KEYS = {
    "train.epochs", "train.max_updates", "train.max_minutes", "train.patience",
    "train.validate_every", "train.validate_sentences", "train.save_every", "train.samples",
    "train.keep_best", "search.beam", "search.alpha", "search.max_ratio",
}  # fmt: skip
_MOST_BAD_UPDATES = 5  # in a row, before training gives up
_LOG_EVERY = 50  # updates


@dataclass
class Progress:
    """Where training stands: all that is not a tensor and is needed to go on.

    Attributes:
        update: optimizer steps done.
        epoch: the one being run, from 0.
        batch: next batch of its plan.
        tokens: target tokens seen, EOS counted.
        seconds: of training so far, validations and saves included.
        best_bleu: best dev BLEU so far, 0 to 100.
        stale: validations since.
        skipped: updates whose gradient was not finite.
        bad_in_a_row: of those, the ones since the last good update.
        stopped_by: why training ended, None while it has not.
    """

    update: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_bleu: float = -1.0
    stale: int = 0
    skipped: int = 0
    bad_in_a_row: int = 0
    stopped_by: str | None = None


def train(config: Config, device_name: str = "auto") -> tuple[Run, Progress]:
    """Train the network of `config`, or go on with a training that was stopped.

    Returns:
        The run, and where it stands. `stopped_by` is None if a signal ended it.

    Raises:
        NmtError: corpus missing, device absent, another run in the way, disk full, or
            the loss is no longer a number.
    """
    manifest = load_manifest(config.data.dir)
    corpus = open_corpus(config)
    device = choose_device(device_name)
    run = _open_or_create(config)
    for warning in manifest["warnings"]:
        warn(warning)
    return _Training(run, corpus, device).go_on()


def _open_or_create(config: Config) -> Run:
    if not (config.run / "run.json").exists():
        say(f"run: {config.run} (new)")
        return Run.create(config, config.data.dir)
    run = Run.open(config.run)
    if run.info["corpus"] != file_sha256(config.data.dir / "manifest.json"):
        raise NmtError(
            f"{config.run}: was started on another corpus than {config.data.dir} holds now",
            f"name another folder in run, or remove {config.run} to start again",
        )
    changed = _differences(run.config.model_dump(mode="json"), config.model_dump(mode="json"))
    unsafe = {key: pair for key, pair in changed.items() if key not in SAFE_KEYS}
    if unsafe:
        shown = "; ".join(f"{key} was {old!r}, is {new!r}" for key, (old, new) in unsafe.items())
        raise NmtError(
            f"{config.run}: was started with another configuration: {shown}",
            "name another folder in run for a new training, or put the keys back",
        )
    if changed:
        shown = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
        say(f"changed for the rest of the training: {shown}")
        run.replace_config(config)
    return run


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys that differ, with both values; what `prepare` alone reads does not count."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in ("run", "data"):
            continue  # where it is; and the corpus is compared by its checksum
        if isinstance(before, dict) and isinstance(after, dict):
            found |= _differences(before, after, f"{path}.")
        elif before != after:
            found[path] = (before, after)
    return found


class _Training:
    """One training in progress: network, optimizer, and where it stands."""

    def __init__(self, run: Run, corpus: PackedSet, device: torch.device) -> None:
        self.run, self.corpus, self.device = run, corpus, device
        self.config = run.config.train
        torch.manual_seed(self.config.seed)
        self.model = run.build_model().to(device)
        self.averaged = copy.deepcopy(self.model) if self.config.ema else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.learning_rate,
            betas=self.config.adam_betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.progress = Progress()
        self._restore()
        self.journal = Journal(run.folder, self.progress.update)
        self.lengths = (corpus.src.lengths, corpus.trg.lengths)
        self.plan = self._plan(self.progress.epoch)
        self.total = self._total_updates()
        self.translator = Translator(
            self.averaged, run.src, run.trg, run.config.search, device,
            run.config.data.clean.max_pieces,
        )  # fmt: skip
        self.dev_src = run.text("dev", "src")[: self.config.validate_sentences]
        self.dev_trg = run.text("dev", "trg")[: self.config.validate_sentences]
        self.validation_seconds = 0.0
        self.started = time.monotonic() - self.progress.seconds
        self.saved_at = time.monotonic()
        self.window = _Window()

    def go_on(self) -> tuple[Run, Progress]:
        """Train until something ends it; the loop itself."""
        progress, config = self.progress, self.config
        if not self._revive():
            say(f"{self.run.folder}: training is finished ({progress.stopped_by})")
            return self.run, progress
        self.journal.write("start", update=progress.update, **environment(self.device))
        parameters = sum(p.numel() for p in self.model.parameters())
        say(
            f"{len(self.corpus):,} pairs, {len(self.plan):,} updates an epoch, at most "
            f"{self.total:,}; {parameters:,} parameters"
            + (f"; going on at update {progress.update:,}" if progress.update else "")
        )
        with stopping_on_signals() as stop, self._bar() as bar:
            for sentences in self._batches(stop):
                self._update(sentences)
                bar.update()
                validate = self._validation_due()
                if progress.update % _LOG_EVERY == 0 or validate:
                    self._log(bar)
                if validate:
                    self._validate_and_save()
                elif time.monotonic() - self.saved_at > config.save_every * 60:
                    self._save()
            if self.window.tokens:
                self._log(bar)
            if stop and progress.stopped_by is None:
                self._save()
                say(f"saved at update {progress.update:,}; the same command goes on from there")
            elif progress.stopped_by is not None:
                self._finish()
        return self.run, progress

    def _batches(self, stop: Stop) -> Iterator[Indices]:
        """The batches still to come; moves the position on after each."""
        progress, config = self.progress, self.config
        while progress.epoch < config.epochs:
            self.plan = self._plan(progress.epoch)
            while progress.batch < len(self.plan):
                if stop:
                    return
                progress.stopped_by = self._reason_to_stop()
                if progress.stopped_by is not None:
                    return
                yield self.plan[progress.batch]
            progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.stopped_by = f"{config.epochs} epochs are done"

    def _reason_to_stop(self) -> str | None:
        progress, config = self.progress, self.config
        if config.max_updates is not None and progress.update >= config.max_updates:
            return f"{config.max_updates} updates are done"
        if progress.stale >= config.patience:
            return f"dev BLEU has not risen in {config.patience} validations"
        if config.max_minutes is not None:
            # A validation and a save must still fit; before the first one, allow a tenth.
            reserve = self.validation_seconds * 1.2 or config.max_minutes * 6
            if self._elapsed() + reserve >= config.max_minutes * 60:
                return f"{config.max_minutes:g} minutes are over"
        return None

    def _update(self, sentences: Indices) -> None:
        """One optimizer step on one batch."""
        progress, config = self.progress, self.config
        progress.batch += 1
        number = progress.update + 1
        torch.manual_seed(_mix(config.seed, number + progress.skipped))
        rate = learning_rate(config, number, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = make_batch(self.corpus, sentences).to(self.device)
        self.model.train()
        loss = batch_loss(self.model, batch, config.label_smoothing)
        torch.autograd.backward(loss.smoothed / loss.tokens)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if not bool(torch.isfinite(norm)):
            self._skip()
            return
        self.optimizer.step()
        self.optimizer.zero_grad()
        progress.update, progress.bad_in_a_row = number, 0
        progress.tokens += loss.tokens
        if config.ema:
            self._average()
        self.window.add(float(loss.plain), loss.tokens, float(norm), batch.trg_out.numel(), rate)

    def _skip(self) -> None:
        """A gradient that is no number would spoil every weight: leave this batch out."""
        self.optimizer.zero_grad()
        progress = self.progress
        progress.skipped += 1
        progress.bad_in_a_row += 1
        warn(f"update {progress.update + 1}: the gradient is not finite; this batch is skipped")
        if progress.bad_in_a_row >= _MOST_BAD_UPDATES:
            raise NmtError(
                f"{progress.bad_in_a_row} batches in a row gave no finite gradient; training "
                f"stopped at update {progress.update}, the last checkpoint is whole",
                f"start again with a lower rate: --set train.learning_rate="
                f"{self.config.learning_rate / 3:.1g}",
            )

    @torch.no_grad()
    def _average(self) -> None:
        # Early weights are far from the end: the average begins short and grows long.
        decay = min(self.config.ema, (1 + self.progress.update) / (10 + self.progress.update))
        torch._foreach_lerp_(
            list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay
        )

    def _validation_due(self) -> bool:
        """Whether this update crossed a multiple of `validate_every` epochs."""
        progress, every = self.progress, self.config.validate_every
        now = progress.epoch + progress.batch / len(self.plan)
        before = progress.epoch + (progress.batch - 1) / len(self.plan)
        return math.floor(now / every + 1e-9) > math.floor(before / every + 1e-9)

    def _validate_and_save(self) -> None:
        began = time.monotonic()
        bleu = self._validate()
        self._save(bleu)
        self.validation_seconds = time.monotonic() - began

    def _validate(self) -> float:
        """Translate dev, score it, say it; returns dev BLEU."""
        translations = [t.text for t in self.translator.translate(self.dev_src)]
        scores = {s.name: s for s in score(translations, self.dev_trg)}
        bleu, chrf = scores["BLEU"].value, scores["chrF2"].value
        progress = self.progress
        better = bleu > progress.best_bleu
        progress.best_bleu = max(bleu, progress.best_bleu)
        progress.stale = 0 if better else progress.stale + 1
        samples = [
            {"source": src, "translation": text, "reference": ref}
            for src, text, ref in zip(self.dev_src, translations, self.dev_trg, strict=True)
        ][: self.config.samples]
        self.journal.write(
            "validation",
            update=progress.update,
            epoch=round(self._epochs_done(), 3),
            seconds=round(self._elapsed(), 1),
            dev_bleu=round(bleu, 2),
            dev_chrf=round(chrf, 2),
            signature=scores["BLEU"].signature,
            sentences=len(self.dev_src),
            samples=samples,
        )
        say(
            f"epoch {self._epochs_done():.1f}, update {progress.update:,}, "
            f"{self._elapsed() / 60:.1f} min: dev BLEU {bleu:.2f}, chrF {chrf:.2f}"
            + (" (best)" if better else "")
        )
        for sample in samples:
            say(f"    {sample['source']}  =>  {sample['translation']}")
        return bleu

    def _epochs_done(self) -> float:
        return self.progress.epoch + self.progress.batch / len(self.plan)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _save(self, bleu: float | None = None) -> None:
        self.progress.seconds = self._elapsed()
        trainer = {}
        for name, parameter in self.model.named_parameters():
            for key in ("exp_avg", "exp_avg_sq"):
                state = self.optimizer.state.get(parameter)
                trainer[f"{key}.{name}"] = state[key] if state else torch.zeros_like(parameter)
            if self.config.ema:
                trainer[f"weight.{name}"] = parameter
        self.run.save(
            {**asdict(self.progress), "dev_bleu": bleu}, self.averaged.state_dict(), trainer
        )
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        """Take up the last good checkpoint, if there is one."""
        found = self.run.last_good(self.device)
        if found is None:
            return
        checkpoint, tensors = found
        self.run.drop_after(checkpoint.update)
        fields = Progress.__dataclass_fields__
        self.progress = Progress(**{k: v for k, v in checkpoint.state.items() if k in fields})
        self.averaged.load_state_dict(tensors["model"])
        trainer = tensors["trainer"]
        for name, parameter in self.model.named_parameters():
            if self.config.ema:
                parameter.data.copy_(trainer[f"weight.{name}"])
            self.optimizer.state[parameter] = {
                # A fused optimizer keeps its count beside the parameter.
                "step": torch.tensor(float(self.progress.update), device=self.device),
                "exp_avg": trainer[f"exp_avg.{name}"].clone(),
                "exp_avg_sq": trainer[f"exp_avg_sq.{name}"].clone(),
            }

    def _revive(self) -> bool:
        """Whether there is still something to do, perhaps since a limit was raised."""
        if self.progress.stopped_by is None:
            return True
        self.progress.stopped_by = self._reason_to_stop()
        if self.progress.stopped_by is None and self.progress.epoch >= self.config.epochs:
            self.progress.stopped_by = f"{self.config.epochs} epochs are done"
        if self.progress.stopped_by is None:
            self.run.mark_finished(False)
        return self.progress.stopped_by is None

    def _finish(self) -> None:
        """End of training: what was not validated yet is, so that the best is known."""
        newest = self.run.checkpoints()
        validated = (
            newest and newest[-1].update == self.progress.update and newest[-1].dev_bleu is not None
        )
        bleu = newest[-1].dev_bleu if validated else self._validate()
        self._save(bleu)
        self.run.mark_finished()
        best = self.run.best()
        say(
            f"finished: {self.progress.stopped_by}; best dev BLEU {best.dev_bleu:.2f} at update "
            f"{best.update:,}, {self._elapsed() / 60:.1f} min in all"
        )

    def _log(self, bar: tqdm[Any]) -> None:
        values = self.window.close()
        self.journal.write(
            "log",
            update=self.progress.update,
            epoch=round(self._epochs_done(), 3),
            tokens=self.progress.tokens,
            seconds=round(self._elapsed(), 1),
            skipped=self.progress.skipped,
            **values,
        )
        bar.set_postfix_str(f"loss {values['loss']:.2f}, {values['tokens_per_second']:,} tokens/s")

    def _bar(self) -> tqdm[Any]:
        return tqdm(
            total=self.total, initial=self.progress.update, desc="training", unit=" updates",
            disable=None, dynamic_ncols=True,
        )  # fmt: skip

    def _plan(self, epoch: int) -> list[Indices]:
        return plan_epoch(*self.lengths, self.config.batch_tokens, self.config.seed, epoch)

    def _total_updates(self) -> int:
        total = self.config.epochs * len(self._plan(0))
        return min(total, self.config.max_updates or total)


class _Window:
    """What happened since the last log record."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.loss, self.tokens, self.norm, self.cells, self.rate = 0.0, 0, 0.0, 0, 0.0
        self.began = time.monotonic()

    def add(self, loss: float, tokens: int, norm: float, cells: int, rate: float) -> None:
        self.loss += loss
        self.tokens += tokens
        self.norm = norm
        self.cells += cells
        self.rate = rate

    def close(self) -> dict[str, Any]:
        """Loss in nats per token, speed in target tokens a second, padding share of the target."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        values = {
            "loss": round(self.loss / max(self.tokens, 1), 4),
            "gradient_norm": round(self.norm, 4),
            "learning_rate": self.rate,
            "tokens_per_second": round(self.tokens / seconds),
            "padding": round(1 - self.tokens / max(self.cells, 1), 4),
        }
        self._reset()
        return values


def _mix(seed: int, update: int) -> int:
    """One 64-bit number from two, unrelated for neighbours."""
    return int(np.random.SeedSequence([seed, update]).generate_state(1, np.uint64)[0] >> 1)
