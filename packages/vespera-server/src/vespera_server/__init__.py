"""The `vespera` command, and the scripted model that lets it run without an account."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
