"""The version of the program, recorded in runs and reports."""

__version__ = "0.1.0"
