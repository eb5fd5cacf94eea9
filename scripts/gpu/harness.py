"""Settings, corpus, networks and training updates, shared by the sections.

A section is a generator of (name, result). The result of a step that raised is its traceback.
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
from nmt.device import use_deterministic_algorithms
from nmt.model import Seq2Seq
from nmt.model.fast import recurrence
from nmt.model.fast.kernels import REFERENCE, Kernels
from nmt.model.fast.triton_launch import TritonKernels
from nmt.train.cuda_graphs import CapturedGradient, GraphPool
from nmt.train.gradient import ModelLoss
from nmt.train.optimizer import Optimizer

Results = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark; the defaults suit a GPU, tests use tiny sizes.

    Attributes:
        corpus: a prepared corpus.
        device: on a CPU the reference kernels replace the Triton kernels.
        sizes: of the network, by name of shape.
        pieces: minimum vocabulary, by name of shape.
        main: shape of the measurements.
        tokens: target tokens per update.
        sweep: further values of `tokens`.
        updates: per pass.
        passes: timed, after two that are not.
        matmul: rows, columns and depth of the matrix product that defines the compute limit.
        copy_mib: size of the copy that defines the memory limit.
        check_sizes: sizes of the kernel checks, besides the small ones.
        train_updates: updates of `nmt train` in the resume check.
    """

    corpus: str
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
    check_sizes: tuple[tuple[int, ...], ...] = (
        (300, 9, 4, 1024, 1024, 1024),
        (64, 48, 3, 1000, 2000, 1000),
    )
    train_updates: int = 40

    def shape(self, name: str) -> dict[str, int]:
        """Return the sizes of a network."""
        return (self.sizes or SHAPES)[name]


class Bench:
    """The corpus, the device and the networks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = torch.device(settings.device)
        use_deterministic_algorithms(self.device)
        self.kernels: Kernels = TritonKernels() if self.device.type == "cuda" else REFERENCE
        self.corpus = PackedSet.open(Path(settings.corpus), "train")
        manifest = load_manifest(Path(settings.corpus))
        self.vocab = [manifest.tokenizers[side].pieces for side in ("src", "trg")]

    def pieces(self, shape: str) -> tuple[int, int]:
        """Return the source and target vocabulary sizes of a shape."""
        minimum = (self.settings.pieces or PIECES)[shape]
        return max(minimum, self.vocab[0]), max(minimum, self.vocab[1])

    def model(self, shape: str, dropout: float = 0.2, **keys: Any) -> Seq2Seq:
        """Return a network with fixed random weights."""
        torch.manual_seed(1)
        return self.network(shape, dropout, **keys).to(self.device)

    def network(self, shape: str, dropout: float, **keys: Any) -> Seq2Seq:
        """Return a network of a shape; `keys` are further keys of `ModelConfig`."""
        src, trg = self.pieces(shape)
        sizes = self.settings.shape(shape)
        options = {"attention_query": "state", "layer_norm": False, **keys}
        config = ModelConfig(dropout=dropout, word_dropout=dropout / 2, **sizes, **options)
        return Seq2Seq(src, trg, config)

    def plan(self, tokens: int) -> list[Indices]:
        """Return the sentences of `updates` updates, each in one block."""
        lengths = self.corpus.src.lengths
        plan = [block for (block,) in plan_epoch(lengths, self.corpus.trg.lengths, tokens, 1, 0)]
        return [plan[i % len(plan)] for i in range(self.settings.updates)]

    def batch(self, part: Indices) -> Batch:
        """Return a batch on the device, without synchronising."""
        return make_batch(self.corpus, part).to(self.device)

    def wait(self) -> None:
        """Synchronise with the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@contextlib.contextmanager
def use_kernels(kernels: Kernels | None) -> Iterator[None]:
    """Context manager: the recurrence runs on `kernels`; None for the default."""
    if kernels is None:
        yield
        return
    with mock.patch.object(recurrence, "select_kernels", return_value=kernels):
        yield


class Trainer:
    """The training updates of `nmt train`.

    Args:
        model: the network.
        precision: of products.
        kernels: of the recurrence; None for the default.
        recorded: whether to capture and replay CUDA graphs, as `nmt train` does on a GPU.
    """

    def __init__(
        self,
        model: Seq2Seq,
        precision: torch.dtype,
        kernels: Kernels | None,
        *,
        recorded: bool = False,
    ) -> None:
        self.model, self.kernels = model.train(), kernels
        device = next(model.parameters()).device
        pools = [GraphPool(device) if recorded else None for _ in range(2)]
        self.step = Optimizer(model, model, TrainConfig(ema=0), pools[0])
        self.loss = ModelLoss(model, 0.1, 0.0, precision)
        self.recorded = None
        if pools[1] is not None:
            self.recorded = CapturedGradient(self.loss, list(model.parameters()), pools[1])

    def gradient(self, batch: Batch, mark: Callable[[str], None] = lambda _: None) -> Tensor:
        """Compute the gradients without CUDA graphs; return the loss in nats per token.

        Args:
            batch: on the device.
            mark: called with the name of a phase at its end.
        """
        with use_kernels(self.kernels):
            smoothed, plain = self.loss(batch)
            mark("readout, output layer and loss (with its own gradient)")
            torch.autograd.backward(smoothed / batch.trg_tokens)
        return plain / batch.trg_tokens

    def add_recorded(self, batch: Batch) -> Tensor:
        """Add the gradients with CUDA graphs; `batch` is on the CPU."""
        assert self.recorded is not None
        with use_kernels(self.kernels):
            plain = self.recorded.accumulate(self.recorded.prepare(batch), 1 / batch.trg_tokens)
        return plain / batch.trg_tokens

    def update(self, batch: Batch, device: torch.device) -> None:
        """Run one update on a CPU batch, without synchronising."""
        if self.recorded is None:
            self.gradient(batch.to(device))
        else:
            self.add_recorded(batch)
        self.step(1e-4, 1)


def attempt(name: str, function: Callable[[], Any]) -> Results:
    """Yield a result, or the traceback if the function raises."""
    try:
        yield name, function()
    except Exception:  # the next step may succeed
        yield name, {"error": traceback.format_exc(limit=-6)[-3000:]}
    empty_gpu()


def empty_gpu() -> None:
    """Free the memory of deleted networks; CUDA graphs are in reference cycles."""
    if torch.cuda.is_available():
        gc.collect()
        with contextlib.suppress(RuntimeError):  # after a failed capture
            torch.cuda.empty_cache()
