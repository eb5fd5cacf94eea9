"""What a section is given: settings, corpus, networks, and updates as `nmt train` makes them.

A section is a generator of (name, result); a variant that fails gives its error in place of
a result.
"""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from shapes import PIECES, SHAPES
from torch import Tensor

from nmt.config.schema import ModelConfig, TrainConfig
from nmt.data.batches import Batch, Indices, make_batch, plan_epoch
from nmt.data.manifest import load_manifest
from nmt.data.packed import PackedSet
from nmt.device import compute_reproducibly
from nmt.model import Seq2Seq
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import REFERENCE, Kernels
from nmt.model.fast.triton_launch import TritonKernels
from nmt.train.cuda_graphs import RecordedGradient, Recorder
from nmt.train.gradient import SummedLoss
from nmt.train.optimizer import Step

Found = Iterator[tuple[str, Any]]
Loop = Kernels


@dataclass(frozen=True)
class Settings:
    """Of a whole benchmark; the defaults are those for a GPU, a test takes tiny ones.

    Attributes:
        corpus: a prepared corpus.
        run: a trained run to translate with, if there is one.
        device: what everything runs on; on a CPU plain kernels take the place of Triton's.
        sizes: by name of shape.
        pieces: smallest vocabulary by name of shape; a corpus with more has its way.
        main: the shape that is looked at most closely.
        tokens: target tokens in an update of it.
        sweep: the same, how it depends on them.
        updates: in a pass; each is timed twice or more after one that warms up.
        passes: that are timed.
        matmul: rows, columns and depth of the product that gives the ceiling.
        copy_mib: size of the copy that gives the other.
        repeats: of a kernel that is timed.
        check_sizes: at which kernels are compared with their twins.
        train_updates: of the whole program, in the comparison of stopping and not stopping.
    """

    corpus: str
    run: str | None = None
    device: str = "cuda"
    sizes: dict[str, dict[str, int]] | None = None
    pieces: dict[str, int] | None = None
    main: str = "base"
    tokens: int = 32_768
    sweep: tuple[int, ...] = (4_096, 8_192, 16_384, 65_536)
    updates: int = 16
    passes: int = 4
    matmul: int = 8_192
    copy_mib: int = 2_048
    repeats: int = 30
    check_sizes: tuple[tuple[int, ...], ...] = (
        (300, 9, 4, 1024, 1024, 1024),
        (64, 48, 3, 1000, 2000, 1000),
    )
    train_updates: int = 40

    def shape(self, name: str) -> dict[str, int]:
        """Sizes of a network."""
        return (self.sizes or SHAPES)[name]


class Bench:
    """What the sections share: the corpus, and how an update is made and timed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        compute_reproducibly(self.device)
        self.kernels: Kernels = TritonKernels() if self.device.type == "cuda" else REFERENCE
        self.corpus = PackedSet.open(Path(settings.corpus), "train")
        manifest = load_manifest(Path(settings.corpus))
        self.vocab = [manifest.tokenizers[side].pieces for side in ("src", "trg")]

    def pieces(self, shape: str) -> tuple[int, int]:
        """Source and target vocabulary of a shape's network."""
        least = (self.settings.pieces or PIECES)[shape]
        return max(least, self.vocab[0]), max(least, self.vocab[1])

    def model(self, shape: str, dropout: float = 0.2, **keys: Any) -> Seq2Seq:
        """A network with random weights, always the same ones."""
        torch.manual_seed(1)
        return self.network(shape, dropout, **keys).to(self.device)

    def network(self, shape: str, dropout: float, **keys: Any) -> Seq2Seq:
        """A network of a shape; `keys` are further ones of `nmt.model.Seq2Seq`."""
        src, trg = self.pieces(shape)
        sizes = self.settings.shape(shape)
        options = {"attention_query": "state", "layer_norm": False, **keys}
        config = ModelConfig(dropout=dropout, word_dropout=dropout / 2, **sizes, **options)
        return Seq2Seq(src, trg, config)

    def plan(self, tokens: int) -> list[Indices]:
        """Sentences of some updates.

        Each is one block, whatever training would cut it to: what its size is worth is measured.
        """
        lengths = self.corpus.src.lengths
        plan = [block for (block,) in plan_epoch(lengths, self.corpus.trg.lengths, tokens, 1, 0)]
        return [plan[i % len(plan)] for i in range(self.settings.updates)]

    def batch(self, part: Indices) -> Batch:
        """On the device, without waiting."""
        return make_batch(self.corpus, part).to(self.device)

    def wait(self) -> None:
        """For the device to have done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def loop(self, kernels: Kernels) -> Loop:
        """The recurrence on some kernels."""
        return kernels


@contextlib.contextmanager
def through(loop: Loop | None) -> Iterator[None]:
    """Within, the recurrence of the network is `loop`; None: the program's own choice."""
    if loop is None:
        yield
        return
    with mock.patch.object(recurrence, "select_kernels", return_value=loop):
        yield


class Trainer:
    """Updates as `nmt train` makes them, without its bookkeeping.

    Args:
        model: to be trained.
        precision: of products.
        loop: the recurrence to go through; None: the program's own choice.
        recorded: whether launches are recorded and replayed, as the program does on a GPU.
    """

    def __init__(
        self, model: Seq2Seq, precision: torch.dtype, loop: Loop | None, *, recorded: bool = False
    ) -> None:
        self.model, self.loop = model.train(), loop
        device = next(model.parameters()).device
        recorders = [Recorder(device) if recorded else None for _ in range(2)]
        self.step = Step(model, model, TrainConfig(ema=0), recorders[0])
        self.loss = SummedLoss(model, 0.1, 0.0, precision)
        self.recorded = None
        if recorders[1] is not None:
            self.recorded = RecordedGradient(self.loss, list(model.parameters()), recorders[1])

    def gradient(self, batch: Batch, mark: Callable[[str], None] = lambda _: None) -> Tensor:
        """Set the gradients, launch by launch; returns the loss in nats per token.

        Args:
            batch: on the device.
            mark: told when a phase ends.
        """
        with through(self.loop):
            smoothed, plain = self.loss(batch)
            mark("readout, output layer and loss (with its own gradient)")
            torch.autograd.backward(smoothed / batch.trg_tokens)
        return plain / batch.trg_tokens

    def add_recorded(self, batch: Batch) -> Tensor:
        """Add the gradients, recorded; `batch` is on the CPU."""
        assert self.recorded is not None
        with through(self.loop):
            plain = self.recorded.add(self.recorded.ready(batch), 1 / batch.trg_tokens)
        return plain / batch.trg_tokens

    def update(self, batch: Batch, device: torch.device) -> None:
        """One update from a batch on the CPU; waits for nothing."""
        if self.recorded is None:
            self.gradient(batch.to(device))
        else:
            self.add_recorded(batch)
        self.step(1e-4, 1)


def attempt(name: str, function: Callable[[], Any]) -> Found:
    """A result under its name; what went wrong, if something did."""
    try:
        yield name, function()
    except Exception:  # the next variant may work, and this one's error is worth knowing
        yield name, {"error": traceback.format_exc(limit=-6)[-3000:]}
    empty_gpu()


def empty_gpu() -> None:
    """Give back what dropped networks held; recordings hold theirs in cycles."""
    if torch.cuda.is_available():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # after a recording that failed
            torch.cuda.empty_cache()
