"""``nmt train``."""

from __future__ import annotations

from typing import Annotated

import typer

from nmt import options


def train(
    config: options.Config,
    set_: options.Overrides = None,
    device: options.Device = "auto",
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also write RUN/tensorboard (extra tensorboard)."),
    ] = False,
) -> None:
    """Train on a prepared corpus, or resume a training that was stopped.

    Ctrl-C saves a checkpoint and stops; the same command resumes with the same result as an
    uninterrupted training. Under torchrun all workers train one model.

    \b
      nmt train --config configs/quickstart.yaml
      nmt train --config configs/quickstart.yaml --set model.attention=none --set run=runs/fixed
      torchrun --nproc-per-node 2 -m nmt train --config configs/quickstart.yaml
    """
    options.refuse_windows("train")
    from nmt.config.load import load_config
    from nmt.train.loop import train as run_train

    _, progress = run_train(load_config(config, set_), device, tensorboard=tensorboard)
    if progress.stopped_by is None:
        raise typer.Exit(130)
