"""Responsible for the version of the Python half; the extension must have the same."""

__all__ = ["__version__"]

__version__ = "0.1.0"
