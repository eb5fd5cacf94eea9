"""Create a run or open it to resume; the configuration keys that may change on resuming."""

from __future__ import annotations

import logging
from typing import Any

from nmt.config.schema import Config
from nmt.distributed import Workers
from nmt.errors import NmtError
from nmt.io.write import file_sha256
from nmt.run.directory import Run
from nmt.train.start import start_files

logger = logging.getLogger(__name__)

# Keys that may change between parts of one training: how long, how often, where.
_SENTENCES = "train.validate_sentences"
SAFE_KEYS = {
    "train.epochs", "train.max_updates", "train.max_minutes", "train.patience",
    "train.validate_every", _SENTENCES, "train.save_every", "train.log_samples",
    "train.keep_best", "search.beam",
    "search.length_penalty", "search.max_ratio", "search.coverage_penalty",
    "search.no_repeat_ngram",
}  # fmt: skip


def open_or_create(config: Config, workers: Workers) -> Run:
    """The run of `config`: a new one, or the one that is there if it is the same training.

    Raises:
        NmtError: it was started on another corpus, or with keys that may not change.
    """
    run = _open_or_create(config) if workers.is_main else None
    workers.barrier()  # until the first has made the folder
    return run or Run.open(config.run)


def _open_or_create(config: Config) -> Run:
    if not (config.run / "run.json").exists():
        logger.info(f"run: {config.run} (new)")
        return Run.create(config, start_files(config))
    run = Run.open(config.run)
    if run.info.corpus != file_sha256(config.data.dir / "manifest.json"):
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
        with run.locked():
            logger.info(f"changed for the rest of the training: {shown}")
            if any(key.startswith("search.") for key in changed) or _SENTENCES in changed:
                logger.warning("dev BLEU is no longer comparable with earlier validations")
            run.replace_config(config)
    return run


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the keys that differ, with both values, except those of `run` and `data`."""
    differing: dict[str, tuple[Any, Any]] = {}
    for key in sorted({*old, *new}):
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in ("run", "data"):
            continue  # the corpus is compared by its checksum
        if isinstance(before, dict) and isinstance(after, dict):
            differing |= _differences(before, after, f"{path}.")
        elif before != after:
            differing[path] = (before, after)
    return differing
