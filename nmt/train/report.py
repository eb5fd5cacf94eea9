"""Reports of a training: journal, log messages, progress bar, curves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from nmt.run.directory import Run
from nmt.run.journal import Journal, Window
from nmt.train.curves import draw_curves
from nmt.train.validation import Validated
from nmt.viz import plots

logger = logging.getLogger(__name__)

_LINE_SECONDS = 30  # between log lines without a progress bar
_CURVES_SHARE = 50  # drawing the curves takes at most one part in this many of the time


class Reporter:
    """Report on a training. Only rank 0 writes the journal and draws.

    Args:
        run: its directory gets the journal and the curves.
        update: the update that training starts from.
        is_main: whether this is rank 0.
        clock: seconds, monotonic.
        tensorboard: also write the journal for TensorBoard.
    """

    def __init__(
        self, run: Run, update: int, *, is_main: bool, clock: Callable[[], float], tensorboard: bool
    ) -> None:
        self.run, self.is_main, self.clock = run, is_main, clock
        self.journal = Journal(run.folder, update, tensorboard=tensorboard) if is_main else None
        self._bar: tqdm[Any] | None = None
        self._line_at, self._draw_at = clock(), 0.0

    def write(self, kind: str, update: int, **values: Any) -> None:
        """Write a record to the journal."""
        if self.journal is not None:
            self.journal.write(kind, update, **values)

    def event(self, message: str, update: int) -> None:
        """Log a warning and write it to the journal."""
        logger.warning(message)
        self.write("event", update, message=message)

    def open_bar(self, total: float, done: float, unit: str) -> tqdm[Any]:
        """Return a progress bar over updates or minutes; none without a terminal."""
        self._bar = tqdm(
            total=total, initial=done, desc="training", unit=f" {unit}", smoothing=0,
            disable=None if self.is_main else True, dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f}{unit} "
            "[{elapsed}<{remaining}{postfix}]",
        )  # fmt: skip
        return self._bar

    def progress(self, done: float, position: str, window: Window) -> None:
        """Move the progress bar, or log a line every 30 seconds without one.

        Args:
            done: updates or minutes, as the bar counts.
            position: where training is, for the log line.
            window: updates since the last log record.
        """
        bar = self._bar
        if bar is None:
            return
        if not bar.disable:
            bar.update(done - bar.n)
        elif self.is_main and self.clock() - self._line_at >= _LINE_SECONDS:
            self._line_at = self.clock()
            share = done / (bar.total or 1)
            loss = f", loss {window.loss / window.tokens:.2f}" if window.tokens else ""
            logger.info(f"{position}, {share:.0%} of the training{loss}")

    def log(self, values: dict[str, Any], update: int) -> None:
        """Report the statistics of a window of updates."""
        self.write("log", update, **values)
        if self._bar is not None:
            speed = f"{values['tokens_per_second']:,} tokens/s"
            self._bar.set_postfix_str(f"loss {values['loss']:.2f}, {speed}")

    def validation(
        self, scores: Validated, update: int, epoch: float, seconds: float, *, best: bool
    ) -> None:
        """Report dev scores and sample translations."""
        self.write(
            "validation",
            update,
            epoch=round(epoch, 3),
            seconds=round(seconds, 1),
            dev_bleu=round(scores.bleu, 2),
            dev_chrf=round(scores.chrf, 2),
            signature=scores.signature,
            sentences=scores.sentences,
            samples=scores.samples,
            **({"also": scores.also} if scores.also else {}),
        )
        logger.info(
            f"epoch {epoch:.1f}, update {update:,}, {seconds / 60:.1f} min: "
            f"dev BLEU {scores.bleu:.2f}, chrF {scores.chrf:.2f}"
            + (" (best)" if best else "")
            + "".join(f"; {name}: BLEU {also['bleu']:.2f}" for name, also in scores.also.items())
        )
        for sample in scores.samples:
            logger.info(f"    {sample['source']}  =>  {sample['translation']}")
        self._line_at = self.clock()

    def draw(self, *, force: bool = False) -> None:
        """Draw the curves, unless drawing takes too large a share of the time."""
        if not self.is_main or not plots.is_installed():
            return
        start = self.clock()
        if force or start > self._draw_at:
            draw_curves(self.run.folder)
            now = self.clock()
            self._draw_at = now + _CURVES_SHARE * (now - start)
