from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from nmt.config.load import build_config
from nmt.config.schema import Config
from nmt.distributed import Workers
from nmt.train.auto import resolve_auto, resolve_precision

DATA = {"dir": "data", "sources": [{"source": "tsv", "path": "a.tsv"}]}


def config(**sections: object) -> Config:
    return build_config({"run": "runs/a", "data": DATA, **sections}, "test")


@pytest.mark.parametrize(
    ("pairs", "batch_tokens"),
    [(100, 512), (15_000, 512), (15_001, 1024), (50_000, 1024), (999_999, 4096), (10**8, 8192)],
)
def test_larger_corpora_get_larger_batches(pairs: int, batch_tokens: int) -> None:
    assert resolve_auto(config(), pairs).train.batch_tokens == batch_tokens


@pytest.mark.parametrize(
    ("pairs", "batch_tokens", "ema"),
    [(500, 512, 0.99), (50_000, 512, 0.995), (10**6, 4096, 0.999)],
)
def test_fine_tuning_uses_smaller_batches_and_shorter_averages(
    pairs: int, batch_tokens: int, ema: float
) -> None:
    train = resolve_auto(config(train={"start_from": "runs/old"}), pairs).train
    assert (train.batch_tokens, train.ema) == (batch_tokens, ema)


def test_it_says_what_it_chose_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    settled = resolve_auto(config(), 12_509)
    assert settled.model.dropout == 0.2
    assert capsys.readouterr().err == (
        "auto, for 12,509 training pairs: model.dropout 0.2, train.batch_tokens 512, "
        "train.ema 0.999\n"
    )


def test_explicit_values_are_kept_without_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    explicit = config(model={"dropout": 0.4}, train={"batch_tokens": 77, "ema": 0.5})
    assert resolve_auto(explicit, 100) == explicit
    assert resolve_auto(resolve_auto(config(), 100), 10**7) == resolve_auto(config(), 100)
    assert "77" not in capsys.readouterr().err
    assert explicit.run == Path("runs/a")


class TwoWorkers(Workers):
    """A group whose second worker has no bfloat16 instructions."""

    def min(self, values: Sequence[float]) -> list[float]:
        return [min(value, 0.0) for value in values]


@pytest.mark.parametrize("fast", [True, False])
def test_precision_is_the_same_on_all_workers(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    cpu = torch.device("cpu")
    alone = resolve_precision(config(), cpu, Workers())
    assert alone.train.precision == ("bfloat16" if fast else "float32")
    assert resolve_precision(config(), cpu, TwoWorkers(0, 2)).train.precision == "float32"
    explicit = config(train={"precision": "bfloat16"})
    assert resolve_precision(explicit, cpu, Workers()) == explicit
