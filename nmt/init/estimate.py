"""Estimate the training time on this machine from a few measured updates."""

from __future__ import annotations

import time

import torch

from nmt.config.schema import Config
from nmt.data.batches import Batch
from nmt.init.template import Corpus
from nmt.model import Seq2Seq
from nmt.symbols import BOS
from nmt.train.auto import resolve_auto
from nmt.train.loss import batch_loss

_UPDATES = 3
_MAX_TOKENS = 1024  # per measured update
_VOCABULARY = 6000
_PIECES_PER_CHARACTER, _PIECES_PER_WORD = 0.65, 1.3


def estimate_minutes(config: Config, corpus: Corpus) -> float:
    """Return the minutes of all epochs, from updates of random tokens on the CPU."""
    config = resolve_auto(config, corpus.pairs)
    src_len = max(2, round(corpus.characters * _PIECES_PER_CHARACTER))
    trg_len = max(2, round(corpus.words * _PIECES_PER_WORD) + 1)
    rows = max(1, min(int(config.train.batch_tokens), _MAX_TOKENS) // trg_len)
    model = Seq2Seq(_VOCABULARY, _VOCABULARY, config.model)
    src = torch.randint(BOS + 2, _VOCABULARY, (rows, src_len))
    trg = torch.randint(BOS + 2, _VOCABULARY, (rows, trg_len))
    batch = Batch(src, torch.ones_like(src, dtype=torch.bool), trg, trg, rows * trg_len)
    start = time.perf_counter()
    for update in range(_UPDATES + 1):
        if update == 1:
            start = time.perf_counter()  # the first one warms up
        loss = batch_loss(model, batch, config.train.label_smoothing).smoothed
        torch.autograd.backward(loss / batch.trg_tokens)
        with torch.no_grad():  # about the cost of AdamW and the EMA
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.mul_(0.999).add_(parameter.grad, alpha=-1e-3)
                    parameter.grad = None
    seconds = (time.perf_counter() - start) / _UPDATES / batch.trg_tokens
    return config.train.epochs * corpus.pairs * trg_len * seconds / 60
