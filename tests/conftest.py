"""Fixtures shared by all tests: a toy configuration and a run trained on it once."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from nmt.log import install_handler
from tests.helpers.command import Nmt, nmt_process
from tests.helpers.corpus import write_toy

# No deadline: examples are slow on a busy machine. In CI hypothesis selects another profile.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def nmt_command() -> Nmt:
    """Return a function that runs ``nmt`` in another process."""
    return nmt_process


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A toy configuration with its text; the corpus is not prepared."""
    return write_toy(tmp_path)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the toy corpus. Tests share it and must not modify it."""
    from nmt.config.load import load_config
    from nmt.prepare.pipeline import prepare
    from nmt.train.loop import train

    config = load_config(write_toy(tmp_path_factory.mktemp("toy")), ["train.epochs=30"])
    prepare(config)
    run, _ = train(config, "cpu")
    return run.folder


@pytest.fixture(autouse=True, scope="session")
def _default_signals() -> None:
    """Restore signal handlers: a process started in the background ignores SIGINT and SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def _messages_on_stderr() -> None:
    """Show log messages on stderr, as the command line does."""
    install_handler()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small models are faster on one thread."""
    torch.set_num_threads(1)
