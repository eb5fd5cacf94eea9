"""Faster implementations of `nmt.model`; tests compare their results and gradients with it."""
