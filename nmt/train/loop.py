"""The training loop: plan, update, validate, save, stop.

Random numbers of an update depend only on (seed, update), and the batches of an epoch only on
(seed, epoch). Training that resumes from a checkpoint therefore continues with the same bits.
"""

# Over 400 lines: the loop and its decisions are read top to bottom.

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from nmt.config.schema import Config
from nmt.data.augment import PieceTable, augment
from nmt.data.batches import Blocks, default_block_tokens, plan_epoch
from nmt.data.manifest import Manifest, check_prepared, load_manifest
from nmt.data.packed import PackedSet
from nmt.device import cores_per_worker, use_deterministic_algorithms
from nmt.distributed import Workers, joined_workers
from nmt.errors import NmtError
from nmt.model.fast.triton_launch import describe_kernels
from nmt.run.directory import Run
from nmt.run.journal import check_tensorboard, environment
from nmt.signals import Stop, stopping_on_signals
from nmt.train.auto import resolve_auto, resolve_precision
from nmt.train.cuda_graphs import GraphPool, uses_cuda_graphs
from nmt.train.forecast import make_forecast
from nmt.train.gradient import GradientComputer
from nmt.train.guided_alignment import add_alignment
from nmt.train.optimizer import Optimizer
from nmt.train.report import Reporter
from nmt.train.resume import open_or_create
from nmt.train.schedule import learning_rate, reason_to_stop
from nmt.train.start import follow_start, load_start
from nmt.train.state import TrainState
from nmt.train.update import RolledBack, Updater
from nmt.train.validation import Validation
from nmt.viz import plots

logger = logging.getLogger(__name__)

_LOG_EVERY = 50  # updates
_PREFETCHED = 4  # batches gathered in advance

Clock = Callable[[], float]
SaveDue = Callable[[TrainState], bool]


def train(
    config: Config,
    device_name: str = "auto",
    *,
    tensorboard: bool = False,
    clock: Clock = time.monotonic,
    save_due: SaveDue | None = None,
) -> tuple[Run, TrainState]:
    """Train the model of `config`, or resume its training.

    Under ``torchrun`` all workers train one model.

    Args:
        config: the whole configuration.
        device_name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        tensorboard: also write the journal for TensorBoard.
        clock: seconds, monotonic.
        save_due: whether to save a checkpoint now; default: every `train.save_every` minutes.

    Returns:
        The run and its state. `stopped_by` is None if a signal stopped the training.

    Raises:
        NmtError: the corpus is missing or damaged, the device is not available, the run
            directory is in use, the disk is full, or training diverges.
    """
    if tensorboard:
        check_tensorboard()
    manifest = load_manifest(config.data.dir)
    check_prepared(config.data, manifest)
    corpus = _open_corpus(config.data.dir, manifest)
    config = resolve_auto(follow_start(config, manifest), len(corpus))
    with joined_workers(device_name) as (device, workers):
        use_deterministic_algorithms(device)
        config = resolve_precision(config, device, workers)
        run = open_or_create(config, workers)
        for warning in manifest.warnings:
            logger.warning(warning)
        with run.locked() if workers.is_main else contextlib.nullcontext():
            training = _Training(run, corpus, device, workers, clock, save_due, tensorboard)
            return run, training.run_to_end()


def _open_corpus(folder: Path, manifest: Manifest) -> PackedSet:
    """Open the packed training set and compare it with the manifest."""
    corpus, size = PackedSet.open(folder, "train"), manifest.train
    corpus.check(
        f"{folder}/train",
        (size.pairs, size.src_pieces, size.trg_pieces),
        (manifest.tokenizers["src"].pieces, manifest.tokenizers["trg"].pieces),
    )
    return corpus


def is_asynchronous(device: torch.device) -> bool:
    """Whether the device computes while the host continues."""
    return device.type == "cuda"


class _Training:
    """One training: model, optimizer, state, and when to validate, save and stop."""

    def __init__(
        self,
        run: Run,
        corpus: PackedSet,
        device: torch.device,
        workers: Workers,
        clock: Clock,
        save_due: SaveDue | None,
        tensorboard: bool,
    ) -> None:
        start = clock()
        self.run, self.device, self.workers, self.clock = run, device, workers, clock
        self.config = config = run.config.train
        torch.manual_seed(config.seed)
        self.model = run.build_model().to(device)
        if (weights := load_start(run)) is not None:
            self.model.load_state_dict(weights)
        # The initial weights of different processors may differ in the last bit.
        workers.broadcast(parameter.data for parameter in self.model.parameters())
        self.averaged = copy.deepcopy(self.model) if config.ema else self.model
        pools = [GraphPool(device) if uses_cuda_graphs(device) else None for _ in range(2)]
        self.optimizer = Optimizer(self.model, self.averaged, config, pools[0])
        asynchronous = is_asynchronous(device)
        self.corpus = add_alignment(run, corpus, workers)
        self.gradient = GradientComputer(
            self.model,
            self.corpus,
            config.label_smoothing,
            device,
            workers,
            precision=torch.bfloat16 if config.precision == "bfloat16" else torch.float32,
            guided_alignment=config.guided_alignment,
            pool=pools[1],
            prefetch_threads=min(_PREFETCHED, cores_per_worker()) if asynchronous else 0,
        )
        self.updater = Updater(
            run, self.optimizer, self.gradient,
            TrainState(block_tokens=default_block_tokens(device)),
            workers, self._event, clock, asynchronous=asynchronous,
        )  # fmt: skip
        self.updater.restore()
        self.report = Reporter(
            run, self.state.update, is_main=workers.is_main, clock=clock, tensorboard=tensorboard
        )
        self.validation = Validation(self.averaged, run, device, workers)
        self.pieces = PieceTable(run.src, run.trg)
        self.plan, self.planned_epoch = self._plan(0), 0
        self.max_updates = config.epochs * len(self.plan)
        if config.max_updates is not None:
            self.max_updates = min(self.max_updates, config.max_updates)
        self.start = start - self.state.seconds
        self.is_save_due = save_due or self._is_time_to_save
        self.saved_at, self.save_due, self.elapsed = clock(), False, 0.0
        self.folder_id = _folder_id(run.folder)
        self.seconds_left, self.by_minutes = 0.0, False  # from the forecast

    @property
    def state(self) -> TrainState:
        """Where training stands; another object after a rollback."""
        return self.updater.state

    def run_to_end(self) -> TrainState:
        """Train until a limit or a signal stops the training; the loop itself."""
        if self.state.stopped_by is not None and not self._can_continue():
            if self.run.info.finished is None:  # killed before it was marked as finished
                self._finish()
            logger.info(f"{self.run.folder}: training is finished ({self.state.stopped_by})")
            return self.state
        self._begin()
        with stopping_on_signals() as stop, self._bar(), contextlib.closing(self.gradient):
            while True:
                try:
                    if self._should_stop(stop):
                        break
                    self._update()
                    validate = self._is_validation_due()
                    window = self.updater.window
                    if window.updates >= _LOG_EVERY or (window.updates and validate):
                        self._log()
                    if validate:
                        self._validate_and_save()
                    elif self.save_due:
                        self._save_if_possible()
                except RolledBack as rollback:
                    self.workers.barrier()  # all have read the checkpoint
                    self._save_if_possible()
                    self._event(str(rollback))
                self._show_progress()
            if self.updater.window.updates:
                self._log()
        self._end()
        return self.state

    def _begin(self) -> None:
        """Report what will be trained, save a first checkpoint, and forecast the needs."""
        state = self.state
        self.report.write(
            "start", state.update, workers=self.workers.count, **environment(self.device)
        )
        parameters = sum(p.numel() for p in self.model.parameters())
        logger.info(
            f"{len(self.corpus):,} pairs, {len(self.plan):,} updates per epoch, at most "
            f"{self.max_updates:,}; {parameters:,} parameters"
            + (f"; {self.workers.count} workers" if self.workers.count > 1 else "")
            + (f"; resuming at update {state.update:,}" if state.update else "")
        )
        graphs = ", captured as CUDA graphs" if self.gradient.captured is not None else ""
        logger.info(f"recurrence: {describe_kernels(self.device)}{graphs}")
        if self.workers.is_main and not plots.is_installed():
            logger.info(
                "curves.svg is not drawn: matplotlib is missing (pip install 'nmt-zh-en[plots]')"
            )
        if not self.run.checkpoints.all():
            self._save()  # fails now if the disk is too small
        self._forecast()

    def _forecast(self) -> None:
        """Measure and report time, memory and disk space."""
        checkpoints = 3 + self.config.keep_best  # two newest, one being written
        forecast = make_forecast(
            lambda blocks: self.gradient.compute(blocks, 0, local=True),
            self.plan,
            self.gradient.lengths,
            self.model,
            self.run.folder,
            checkpoints * (4 if self.config.ema else 3),  # weights, their average, two moments
        )
        self.gradient.zero()
        # All workers use the limit of the one with the least memory.
        (self.gradient.max_cells,) = self.workers.min([self.gradient.max_cells])
        epochs = (self.max_updates - self.state.update) / len(self.plan)
        minutes = self.config.max_minutes
        max_seconds = math.inf if minutes is None else minutes * 60 - self.state.seconds
        self.seconds_left = forecast.seconds_per_epoch * epochs
        logger.info(forecast.text(epochs, max_seconds))
        if (warning := forecast.warning()) is not None:
            logger.warning(warning)
        self.report.write("forecast", self.state.update, **forecast.record())

    def _bar(self) -> contextlib.AbstractContextManager[object]:
        """Open a progress bar over the limit that will end the training."""
        minutes = self.config.max_minutes
        self.by_minutes = minutes is not None and (
            self._seconds() + self.seconds_left >= minutes * 60
        )
        if self.by_minutes:
            return self.report.open_bar(minutes or 0, self._seconds() / 60, "min")
        return self.report.open_bar(self.max_updates, self.state.update, "updates")

    def _show_progress(self) -> None:
        done = self._seconds() / 60 if self.by_minutes else self.state.update
        position = f"epoch {self._epochs():.1f}, update {self.state.update:,}"
        self.report.progress(done, position, self.updater.window)

    def _should_stop(self, stop: Stop) -> bool:
        """Whether a limit or a signal ends the training; sets `stopped_by` for a limit.

        A signal or a limit on any worker stops all of them.
        """
        state = self.state
        self._plan_epoch()
        if state.batch >= len(self.plan):
            state.epoch, state.batch = state.epoch + 1, 0
            self._plan_epoch()
        seconds = self._seconds() + self.updater.longest  # the next update must fit too
        state.stopped_by = reason_to_stop(self.config, state, seconds)
        due = self.is_save_due(state)
        limit, signal, save_due, self.elapsed = self.workers.max(
            [state.stopped_by is not None, bool(stop), due, self._seconds()]
        )
        self.save_due = bool(save_due)
        if limit or signal:
            self.updater.collect()  # may roll back, and then training continues
        if limit and state.stopped_by is None:  # another worker's clock
            state.stopped_by = reason_to_stop(self.config, state, math.inf)
        return bool(limit or signal)

    def _update(self) -> None:
        """Perform one update on the next batch."""
        config, state = self.config, self.state
        batch = self.plan[state.batch]
        state.batch += 1
        time_share = None
        if config.schedule_by == "minutes" and config.max_minutes is not None:
            time_share = self.elapsed / (config.max_minutes * 60)
        number = self.updater.next_number
        rate = learning_rate(config, number, self.max_updates, time_share) * state.rate_scale
        done = state.update + (self.updater.pending is not None) + 1
        last = config.max_updates is not None and done >= config.max_updates
        upcoming = self.plan[state.batch : state.batch + _PREFETCHED]
        synchronous = last or self.save_due or self._is_validation_due()
        self.updater.update(batch, rate, upcoming, synchronous=synchronous)

    def _is_validation_due(self) -> bool:
        """Whether the last batch crossed a multiple of `validate_every` epochs."""
        every = self.config.validate_every
        before = self._epochs() - 1 / len(self.plan)
        return math.floor(self._epochs() / every + 1e-9) > math.floor(before / every + 1e-9)

    def _validate(self) -> float:
        """Translate and score dev; return its BLEU."""
        scores = self.validation.validate()
        best = self.state.note_score(scores.bleu)
        update, epochs, seconds = self.state.update, self._epochs(), self._seconds()
        self.report.validation(scores, update, epochs, seconds, best=best)
        self.report.draw()
        return scores.bleu

    def _validate_and_save(self) -> None:
        start = self.clock()
        bleu = self._validate()
        self.state.validation_seconds = self.clock() - start
        self._save_if_possible(bleu)
        self.state.validation_seconds = self.clock() - start

    def _save(self, bleu: float | None = None) -> None:
        """Save a checkpoint of finite weights.

        Raises:
            NmtError: the disk is full, the run directory is gone, or the weights are not finite.
        """
        self._check_folder()
        if not self._weights_are_finite():
            raise NmtError(f"update {self.state.update}: the weights are not finite, so not saved")
        self.state.seconds, self.saved_at = self._seconds(), self.clock()
        if self.workers.is_main:
            self.run.checkpoints.save(
                asdict(self.state),
                self.averaged.state_dict(),
                self.optimizer.state_dict(),
                bleu,
            )

    def _save_if_possible(self, bleu: float | None = None) -> None:
        """Save a checkpoint; if the disk is full, continue and try again later.

        Raises:
            RolledBack: the weights are not finite.
        """
        self._check_folder()
        if not self._weights_are_finite():
            self.updater.roll_back("the weights are not finite")
        try:
            self._save(bleu)
        except (NmtError, OSError) as error:
            self._event(f"update {self.state.update} is not saved, training continues: {error}")

    def _weights_are_finite(self) -> bool:
        (broken,) = self.workers.max([not self.optimizer.weights_are_finite()])
        return not broken

    def _is_time_to_save(self, _: TrainState) -> bool:
        return self.clock() - self.saved_at > self.config.save_every * 60

    def _check_folder(self) -> None:
        """Refuse to continue without the run directory that training started in."""
        if _folder_id(self.run.folder) != self.folder_id:
            raise NmtError(
                f"{self.run.folder}: the run directory was moved or removed during training",
                "move it back and run the same command again; it resumes from the last checkpoint",
            )

    def _can_continue(self) -> bool:
        """Whether a finished run can be trained further because a limit was raised."""
        state, before = self.state, self.state.stopped_by
        state.stopped_by = reason_to_stop(self.config, state, state.seconds)
        if state.stopped_by is None and before == reason_to_stop(self.config, state, math.inf):
            state.stopped_by = before  # the same time limit; the rest is too short for an update
        if state.stopped_by is None and self.workers.is_main:
            self.run.mark_finished(False)
        return state.stopped_by is None

    def _end(self) -> None:
        """Save after a signal, or finish the run after a limit."""
        state = self.state
        if state.stopped_by is None:
            self._save()
            logger.info(f"saved at update {state.update:,}; the same command resumes from there")
        elif state.update:
            self._finish()
        else:
            raise NmtError(
                f"{self.run.folder}: {state.stopped_by} before the first update",
                "raise train.max_minutes and run the same command again",
            )

    def _finish(self) -> None:
        """Validate the last weights if needed, and mark the run as finished.

        Repeated from the start if it was interrupted.
        """
        self._check_folder()
        newest = self.run.checkpoints.all()[-1]
        validated = newest.update == self.state.update and newest.dev_bleu is not None
        self.workers.barrier()  # all have read the checkpoints
        self._save(newest.dev_bleu if validated else self._validate())
        self.workers.barrier()
        if not self.workers.is_main:
            return
        self.report.draw(force=True)
        self.run.mark_finished()
        best = self.run.checkpoints.best()
        logger.info(
            f"finished: {self.state.stopped_by}; best dev BLEU {best.dev_bleu:.2f} at "
            f"update {best.update:,}, {self._seconds() / 60:.1f} min in total"
        )

    def _log(self) -> None:
        window, state = self.updater.take_window(), self.state
        values = {
            "epoch": round(self._epochs(), 3),
            "tokens": state.tokens,
            "seconds": round(self._seconds(), 1),
            "skipped": state.skipped,
            **window.values(self.workers),
        }
        self.report.log(values, state.update)

    def _event(self, message: str) -> None:
        self.report.event(message, self.state.update)

    def _epochs(self) -> float:
        return self.state.epoch + self.state.batch / len(self.plan)

    def _seconds(self) -> float:
        return self.clock() - self.start

    def _plan_epoch(self) -> None:
        """Plan the batches of the current epoch, if they are not planned yet."""
        epoch = self.state.epoch
        if epoch != self.planned_epoch:
            self.plan, self.planned_epoch = self._plan(epoch), epoch

    def _plan(self, epoch: int) -> list[Blocks]:
        """Augment the corpus for an epoch, and return its batches."""
        corpus = augment(
            self.corpus, self.pieces,
            joined=self.config.joined_pairs, spans=self.config.span_pairs,
            max_pieces=self.run.config.data.clean.max_pieces,
            seed=self.config.seed, epoch=epoch,
        )  # fmt: skip
        self.gradient.use(corpus)
        tokens = self.config.batch_tokens
        assert tokens != "auto"  # resolved before the run was created
        return plan_epoch(
            *self.gradient.lengths, tokens, self.config.seed, epoch,
            block_tokens=self.state.block_tokens,
        )  # fmt: skip


def _folder_id(folder: Path) -> tuple[int, int] | None:
    """Return what identifies a directory whatever its name; None if there is none."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
