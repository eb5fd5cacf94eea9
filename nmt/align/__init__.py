"""Which piece translates which, learned from the packed corpus alone."""

from nmt.align.aligner import Aligner

__all__ = ["ALIGNER", "Aligner"]

ALIGNER = "aligner.safetensors"  # its name in a run directory
