"""The run directory of a training: model, checkpoints, journal."""
