"""The training loop. `train` reads top to bottom.

Everything random in an update is drawn from (seed, update), and the batches of an epoch
from (seed, epoch): where training stands is a few numbers, and going on after a stop, or
a kill at any moment, gives the same bytes as not having stopped.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from nmt.config.schema import Config
from nmt.data.augment import PieceTable, augment
from nmt.data.batches import Blocks, default_block_tokens, plan_epoch
from nmt.data.manifest import Manifest, check_prepared, load_manifest
from nmt.data.packed import PackedSet
from nmt.device import compute_reproducibly, cores_of_a_worker
from nmt.distributed import Workers, joining_workers
from nmt.errors import NmtError
from nmt.model.fast.triton_launch import describe_kernels
from nmt.run.directory import Run
from nmt.run.journal import Journal, Window, environment
from nmt.signals import Stop, stopping_on_signals
from nmt.train.auto import settle, settle_precision
from nmt.train.cuda_graphs import LAUNCH, Recorder
from nmt.train.curves import draw_curves
from nmt.train.forecast import make_forecast
from nmt.train.gradient import Computed, Gradient
from nmt.train.guided_alignment import add_alignment
from nmt.train.optimizer import Step
from nmt.train.resume import open_or_create
from nmt.train.schedule import learning_rate, reason_to_stop
from nmt.train.start import follow_start, load_start
from nmt.train.state import Progress
from nmt.train.validation import Validation
from nmt.viz import plots

logger = logging.getLogger(__name__)

_LOG_EVERY = 50  # updates
_LOOK_AHEAD = 4  # batches gathered while others are computed
_MOST_BAD_UPDATES = 5  # in a row, before going back to the last checkpoint
_MOST_WAYS_BACK = 3  # before giving up
_LOWER = 0.5  # what the rate is multiplied by when going back


def train(
    config: Config, device_name: str = "auto", *, tensorboard: bool = False
) -> tuple[Run, Progress]:
    """Train the network of `config`, or go on with a training that was stopped.

    Under ``torchrun`` all its workers train one network together.

    Args:
        config: what to train.
        device_name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        tensorboard: also write the journal's numbers for TensorBoard.

    Returns:
        The run, and where it stands. `stopped_by` is None if a signal ended it.

    Raises:
        NmtError: corpus missing, device absent, another run in the way, disk full when
            the last checkpoint is written, or the loss is no longer a number.
    """
    manifest = load_manifest(config.data.dir)
    check_prepared(config.data, manifest)
    corpus = _open_corpus(config.data.dir, manifest)
    config = settle(follow_start(config, manifest), len(corpus))
    with joining_workers(device_name) as (device, workers):
        compute_reproducibly(device)
        config = settle_precision(config, device, workers)
        run = open_or_create(config, workers)
        for warning in manifest.warnings:
            logger.warning(warning)
        with run.locked() if workers.first else contextlib.nullcontext():
            return _Training(run, corpus, device, workers, tensorboard=tensorboard).go_on()


def _open_corpus(folder: Path, manifest: Manifest) -> PackedSet:
    """Open the packed training set and compare it with the manifest."""
    corpus, size = PackedSet.open(folder, "train"), manifest.train
    corpus.check(
        f"{folder}/train",
        (size.pairs, size.src_pieces, size.trg_pieces),
        (manifest.tokenizers["src"].pieces, manifest.tokenizers["trg"].pieces),
    )
    return corpus


class _Launched:
    """An update on its way: its numbers come from the GPU as soon as it has them.

    Args:
        numbers: loss summed over this worker's tokens, and norm of the gradient, `[2]`.
        computed: what this worker computed.
        rate: the learning rate.
    """

    def __init__(self, numbers: Tensor, computed: Computed, rate: float) -> None:
        self.computed, self.rate = computed, rate
        self._numbers = numbers.to("cpu", non_blocking=True)  # to pinned memory
        self._ready = None
        if numbers.is_cuda:
            self._ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._ready.record(torch.cuda.current_stream(numbers.device))

    def outcome(self) -> tuple[float, float]:
        """Loss and norm; waits for this update, and for nothing launched after it."""
        if self._ready is not None:
            self._ready.synchronize()
        loss, norm = self._numbers.tolist()
        return loss, norm


def is_recorded(device: torch.device) -> bool:
    """Whether what an update launches is recorded and replayed."""
    return is_launched(device) and not os.environ.get(LAUNCH)


def is_launched(device: torch.device) -> bool:
    """Whether the host launches updates, and is free to do other things while they run.

    If so, an update is launched before the outcome of the last one is known.
    """
    return device.type == "cuda"


def _random_number(seed: int, number: int, rank: int) -> int:
    """One 64-bit number from three, unrelated for neighbours."""
    words = [seed, number, *([rank] if rank else [])]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


class _Training:
    """One training in progress: network, optimizer, and where it stands."""

    def __init__(
        self,
        run: Run,
        corpus: PackedSet,
        device: torch.device,
        workers: Workers,
        *,
        tensorboard: bool,
    ) -> None:
        began = time.monotonic()  # the first pass of an aligner takes a minute
        self.run, self.corpus, self.device, self.workers = run, corpus, device, workers
        self.config = run.config.train
        torch.manual_seed(self.config.seed)
        self.model = run.build_model().to(device)
        if (weights := load_start(run)) is not None:
            self.model.load_state_dict(weights)
        # One seed gives all workers the same weights, to the last bit only on like processors.
        workers.agree(parameter.data for parameter in self.model.parameters())
        self.averaged = copy.deepcopy(self.model) if self.config.ema else self.model
        recorders = [Recorder(device) if is_recorded(device) else None for _ in range(2)]
        self.step = Step(self.model, self.averaged, self.config, recorders[0])
        self.progress = Progress(block_tokens=default_block_tokens(device))
        self._restore()
        rounded = self.config.precision == "bfloat16"
        look_ahead = min(_LOOK_AHEAD, cores_of_a_worker()) if is_launched(device) else 0
        self.corpus = add_alignment(run, corpus, workers)
        self.gradient = Gradient(
            self.model,
            self.corpus,
            self.config.label_smoothing,
            device,
            workers,
            precision=torch.bfloat16 if rounded else torch.float32,
            guided_alignment=self.config.guided_alignment,
            recorder=recorders[1],
            look_ahead=look_ahead,
        )
        self.journal = None
        if workers.first:
            self.journal = Journal(run.folder, self.progress.update, tensorboard=tensorboard)
        self.pieces = PieceTable(run.src, run.trg)
        self.plan, self.planned_epoch = self._plan(0), 0
        total = self.config.epochs * len(self.plan)
        self.total = min(total, self.config.max_updates or total)
        self.validation = Validation(self.averaged, run, device, workers)
        self.started = began - self.progress.seconds
        self.saved_at, self.save_due, self.elapsed = time.monotonic(), False, 0.0
        self.window, self.draw_again_at, self.longest_update = Window(), 0.0, 0.0
        self.launched: _Launched | None = None
        self.settled_at = 0.0

    def go_on(self) -> tuple[Run, Progress]:
        """Train until something ends it; the loop itself."""
        if self.progress.stopped_by is not None and not self._revive():
            if self.run.info.finished is None:
                self._finish()  # a kill came between the last save and here
            logger.info(f"{self.run.folder}: training is finished ({self.progress.stopped_by})")
            return self.run, self.progress
        self._begin()
        with (
            stopping_on_signals() as stop,
            self._bar() as bar,
            contextlib.closing(self.gradient),
        ):
            for batch in self._batches(stop):
                went_on = self._update(batch)
                bar.update(self.progress.update - bar.n)
                if not went_on:
                    continue  # what was due there was done when the checkpoint was written
                validate = self._validation_due()
                if self.window.updates >= _LOG_EVERY or (self.window.updates and validate):
                    self._log(bar)
                if validate:
                    self._validate_and_save()
                elif self.save_due:
                    self._save_if_possible()
            if self.window.updates:
                self._log(bar)
            if self.progress.stopped_by and not self.progress.update:
                raise NmtError(
                    f"{self.run.folder}: {self.progress.stopped_by} before the first update",
                    "raise train.max_minutes and run the same command again",
                )
            if self.progress.stopped_by is None:
                self._save()
                logger.info(
                    f"saved at update {self.progress.update:,}; the same command goes on from there"
                )
            else:
                self._finish()
        return self.run, self.progress

    def _begin(self) -> None:
        """Say what will happen; see to it that there is a checkpoint to go back to."""
        progress = self.progress
        self._write("start", workers=self.workers.count, **environment(self.device))
        parameters = sum(p.numel() for p in self.model.parameters())
        logger.info(
            f"{len(self.corpus):,} pairs, {len(self.plan):,} updates an epoch, at most "
            f"{self.total:,}; {parameters:,} parameters"
            + (f"; {self.workers.count} workers" if self.workers.count > 1 else "")
            + (f"; going on at update {progress.update:,}" if progress.update else "")
        )
        recorded = ", recorded as CUDA graphs" if self.gradient.recorded is not None else ""
        logger.info(f"recurrence: {describe_kernels(self.device)}{recorded}")
        if self.workers.first and not plots.is_installed():
            logger.info(
                "curves.svg is not drawn: matplotlib is missing (pip install 'nmt-zh-en[plots]')"
            )
        if not self.run.checkpoints.all():
            self._save()  # a disk that can't hold it is better known now than in an hour
        self._forecast()

    def _forecast(self) -> None:
        kept = 3 + self.config.keep_best  # one being written
        forecast = make_forecast(
            lambda blocks: self.gradient.compute(blocks, 0, alone=True),
            self.plan,
            self.gradient.lengths,
            self.model,
            self.run.folder,
            kept * (4 if self.config.ema else 3),  # weights, their average, two moments
        )
        self.gradient.clear()
        # The smallest memory decides, lest one worker alone runs out of it.
        (self.gradient.most_cells,) = self.workers.smallest([self.gradient.most_cells])
        epochs = (self.total - self.progress.update) / len(self.plan)
        minutes = self.config.max_minutes
        most = math.inf if minutes is None else minutes * 60 - self.progress.seconds
        logger.info(forecast.text(epochs, most))
        if (warning := forecast.warning()) is not None:
            logger.warning(warning)
        self._write("forecast", **forecast.record())

    def _batches(self, stop: Stop) -> Iterator[Blocks]:
        """The batches still to come; the position moves on with each."""
        while True:
            progress = self.progress  # another one after going back
            if progress.epoch != self.planned_epoch:
                self.plan, self.planned_epoch = self._plan(progress.epoch), progress.epoch
            if progress.batch >= len(self.plan):
                progress.epoch, progress.batch = progress.epoch + 1, 0
                continue
            # The update to come takes its time too.
            seconds = self._elapsed() + self.longest_update
            progress.stopped_by = reason_to_stop(self.config, progress, seconds)
            # One worker's clock or signal is as good as everybody's.
            asked, stopped, save_due, self.elapsed = self.workers.largest(
                [bool(stop), progress.stopped_by is not None, self._save_due(), self._elapsed()]
            )
            self.save_due = bool(save_due)
            if (stopped or asked) and not self._settle():
                continue  # went back: there is more to do, or the same question again
            if stopped:
                if progress.stopped_by is None:  # another worker's time is over
                    progress.stopped_by = reason_to_stop(self.config, progress, math.inf)
                return
            if asked:
                return
            batch = self.plan[progress.batch]
            progress.batch += 1
            yield batch

    def _update(self, batch: Blocks) -> bool:
        """One optimizer step on one batch; False if training went back instead.

        A GPU is given the next update before the outcome of this one is known, so that it
        never waits for the program: what an update is made from does not depend on the
        outcome of the one before, except through the weights.
        """
        if self.launched is None:
            self.settled_at = time.monotonic()
        launched = self._launch(batch)
        if not self._settle():
            return False  # and the update just launched never was
        self.launched = launched
        # A decision that depends on what was done waits for it.
        most = self.config.max_updates
        known = not is_launched(self.device) or self.save_due or self._validation_due()
        if known or (most is not None and self.progress.update + 1 >= most):
            return self._settle()
        return True

    def _launch(self, batch: Blocks) -> _Launched:
        """Have one update computed; a gradient that is not finite changes nothing."""
        config, progress = self.config, self.progress
        # Batches left out count too, so that nobody has to know yet whether the last one is.
        number = progress.update + progress.skipped + (self.launched is not None) + 1
        minutes = config.max_minutes if config.schedule_by == "minutes" else None
        spent = None if minutes is None else self.elapsed / (minutes * 60)
        rate = learning_rate(config, number, self.total, spent) * progress.rate_scale
        self.model.train()
        seed = _random_number(config.seed, number, self.workers.rank)
        computed = self.gradient.compute(batch, seed, number)
        norm = self.step(rate, number)
        launched = _Launched(torch.stack([computed.loss, norm]), computed, rate)
        soon = self.plan[progress.batch : progress.batch + _LOOK_AHEAD]
        for ahead, blocks in enumerate(soon, start=1):
            self.gradient.expect(blocks, number + ahead)
        return launched

    def _settle(self) -> bool:
        """Take note of the outcome of what was launched last; False if training went back."""
        launched, self.launched = self.launched, None
        if launched is None:
            return True
        loss, norm = launched.outcome()
        if not math.isfinite(norm):
            return self._skip()
        progress, now = self.progress, time.monotonic()
        progress.update, progress.bad_in_a_row = progress.update + 1, 0
        computed = launched.computed
        progress.tokens += computed.everybodys_tokens
        seconds, self.settled_at = now - self.settled_at, now
        self.longest_update = max(self.longest_update, seconds)
        self.window.add(loss, computed.tokens, norm, computed.cells, launched.rate, seconds)
        return True

    def _skip(self) -> bool:
        """A gradient that is no number would spoil every weight: leave this batch out.

        Returns:
            Whether training goes on from here; else it has gone back.
        """
        progress = self.progress
        progress.skipped += 1
        progress.bad_in_a_row += 1
        self._event(f"update {progress.update + 1}: the gradient is not finite; batch left out")
        if progress.bad_in_a_row < _MOST_BAD_UPDATES:
            return True
        self._go_back()
        return False

    def _go_back(self) -> None:
        """Too many bad batches: from the last checkpoint again, with a lower rate."""
        spoiled = self.progress
        if spoiled.went_back >= _MOST_WAYS_BACK:
            raise NmtError(
                f"update {spoiled.update + 1}: no finite gradient in {_MOST_BAD_UPDATES} batches "
                f"in a row, also after going back {_MOST_WAYS_BACK} times and lowering the "
                f"learning rate to {spoiled.rate_scale:g} of what was asked for; "
                "the last checkpoint is whole",
                "start a new run with a lower rate: --set train.learning_rate="
                f"{self.config.learning_rate * spoiled.rate_scale:.1g}",
            )
        self._restore()
        progress = self.progress
        progress.rate_scale = spoiled.rate_scale * _LOWER
        progress.went_back = spoiled.went_back + 1
        progress.skipped = spoiled.skipped
        progress.seconds = self._elapsed()
        self.window = Window()
        self.workers.wait()  # all have read the checkpoint before its state is changed
        self._save_if_possible()
        self._event(
            f"{_MOST_BAD_UPDATES} bad batches in a row: back to update {progress.update}, "
            f"learning rate times {progress.rate_scale:g}"
        )

    def _validation_due(self) -> bool:
        """Whether this update crossed a multiple of `validate_every` epochs."""
        every = self.config.validate_every
        before = self._epochs_done() - 1 / len(self.plan)
        return math.floor(self._epochs_done() / every + 1e-9) > math.floor(before / every + 1e-9)

    def _validate_and_save(self) -> None:
        began = time.monotonic()
        bleu = self._validate()
        self.progress.validation_seconds = time.monotonic() - began
        self._save_if_possible(bleu)
        self.progress.validation_seconds = time.monotonic() - began

    def _validate(self) -> float:
        """Translate dev, score it, say it; returns dev BLEU."""
        found = self.validation.validate()
        better = self.progress.note_score(found.bleu)
        self._write(
            "validation",
            epoch=round(self._epochs_done(), 3),
            seconds=round(self._elapsed(), 1),
            dev_bleu=round(found.bleu, 2),
            dev_chrf=round(found.chrf, 2),
            signature=found.signature,
            sentences=len(self.validation.src),
            samples=found.samples,
            **({"also": found.also} if found.also else {}),
        )
        logger.info(
            f"epoch {self._epochs_done():.1f}, update {self.progress.update:,}, "
            f"{self._elapsed() / 60:.1f} min: dev BLEU {found.bleu:.2f}, chrF {found.chrf:.2f}"
            + (" (best)" if better else "")
            + "".join(f"; {name}: BLEU {also['bleu']:.2f}" for name, also in found.also.items())
        )
        for sample in found.samples:
            logger.info(f"    {sample['source']}  =>  {sample['translation']}")
        self._draw()
        return found.bleu

    def _draw(self, *, at_the_end: bool = False) -> None:
        """Draw the curves, unless that would take more than a fiftieth of the time."""
        if not self.workers.first or not plots.is_installed():
            return
        began = time.monotonic()
        if at_the_end or began > self.draw_again_at:
            draw_curves(self.run.folder)
            now = time.monotonic()
            self.draw_again_at = now + 50 * (now - began)

    def _save(self, bleu: float | None = None) -> None:
        self.progress.seconds = self._elapsed()
        self.saved_at = time.monotonic()
        if self.workers.first:
            self.run.checkpoints.save(
                asdict(self.progress), self.averaged.state_dict(), self.step.tensors(), bleu
            )

    def _save_if_possible(self, bleu: float | None = None) -> None:
        """Save; with a full disk go on training, the next time there may be room."""
        try:
            self._save(bleu)
        except (NmtError, OSError) as error:
            self._event(f"update {self.progress.update} is not saved, training goes on: {error}")

    def _save_due(self) -> bool:
        return time.monotonic() - self.saved_at > self.config.save_every * 60

    def _restore(self) -> None:
        """Take up the last good checkpoint, if there is one."""
        found = self.run.checkpoints.last_good()
        self.workers.wait()  # all have chosen before anything is removed or written
        if self.workers.first:
            self.run.tidy(0 if found is None else found[0].update)
        if found is None:
            return
        checkpoint, tensors = found
        self.progress = Progress.of(checkpoint.state.training)
        self.step.put_back(tensors, checkpoint.update)

    def _revive(self) -> bool:
        """Whether there is more to do after the end, since a limit was raised."""
        progress, before = self.progress, self.progress.stopped_by
        progress.stopped_by = reason_to_stop(self.config, progress, progress.seconds)
        if progress.stopped_by is None and before == reason_to_stop(
            self.config, progress, math.inf
        ):
            progress.stopped_by = before  # what is left of that time is too little for an update
        if progress.stopped_by is None and self.workers.first:
            self.run.mark_finished(False)
        return progress.stopped_by is None

    def _finish(self) -> None:
        """End of training: what was not validated yet is, so that the best is known.

        Killed on the way, it is done again from its start.
        """
        newest = self.run.checkpoints.all()[-1]
        validated = newest.update == self.progress.update and newest.dev_bleu is not None
        self.workers.wait()  # all have looked before anything is saved
        self._save(newest.dev_bleu if validated else self._validate())
        self.workers.wait()
        if not self.workers.first:
            return
        self._draw(at_the_end=True)
        self.run.mark_finished()
        best = self.run.checkpoints.best()
        logger.info(
            f"finished: {self.progress.stopped_by}; best dev BLEU {best.dev_bleu:.2f} at "
            f"update {best.update:,}, {self._elapsed() / 60:.1f} min in all"
        )

    def _log(self, bar: tqdm[Any]) -> None:
        values, self.window = self.window.values(self.workers), Window()
        self._write(
            "log",
            epoch=round(self._epochs_done(), 3),
            tokens=self.progress.tokens,
            seconds=round(self._elapsed(), 1),
            skipped=self.progress.skipped,
            **values,
        )
        bar.set_postfix_str(f"loss {values['loss']:.2f}, {values['tokens_per_second']:,} tokens/s")

    def _event(self, message: str, *, warning: bool = True) -> None:
        """Something out of the ordinary: said, and written down."""
        logger.log(logging.WARNING if warning else logging.INFO, message)
        self._write("event", message=message)

    def _write(self, kind: str, **values: Any) -> None:
        if self.journal is not None:
            self.journal.write(kind, self.progress.update, **values)

    def _bar(self) -> tqdm[Any]:
        return tqdm(
            total=self.total, initial=self.progress.update, desc="training", unit=" updates",
            disable=None if self.workers.first else True, dynamic_ncols=True,
        )  # fmt: skip

    def _epochs_done(self) -> float:
        return self.progress.epoch + self.progress.batch / len(self.plan)

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _plan(self, epoch: int) -> list[Blocks]:
        corpus = augment(
            self.corpus, self.pieces,
            joined=self.config.joined_pairs, spans=self.config.span_pairs,
            max_pieces=self.run.config.data.clean.max_pieces,
            seed=self.config.seed, epoch=epoch,
        )  # fmt: skip
        self.gradient.use(corpus)
        tokens = self.config.batch_tokens
        assert tokens != "auto"  # settled before
        return plan_epoch(
            *self.gradient.lengths, tokens, self.config.seed, epoch,
            block_tokens=self.progress.block_tokens,
        )  # fmt: skip
