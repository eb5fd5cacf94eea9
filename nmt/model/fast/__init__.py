"""Faster implementations of the network in `nmt.model`, pinned to it by tests."""
