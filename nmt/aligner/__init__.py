"""Which piece translates which, learned from the packed corpus alone."""

from nmt.aligner.aligner import Aligner

__all__ = ["Aligner"]
