"""Responsible for choosing a backend: Rust when it loads, else Python, or what the user demands.

``VESPERA_BACKEND`` (``auto``, ``rust``, ``python``) is read once, when the package is imported.
Both backends stay importable beside each other: ``vespera_file_ops.backends.rust`` and
``vespera_file_ops.backends.python``.
"""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    from vespera_file_ops.backends._protocol import FileOps

__all__ = ["BackendName", "choose", "load"]

BackendName = Literal["rust", "python"]


def load(name: BackendName) -> FileOps:
    """Import one backend; ``ImportError`` says why the Rust one cannot be loaded."""
    return cast("FileOps", importlib.import_module(f"{__name__}.{name}"))


def choose() -> tuple[BackendName, FileOps]:
    """Pick what the module functions use, and warn once if that is a fallback."""
    wanted = os.environ.get("VESPERA_BACKEND") or "auto"
    if wanted not in ("auto", "rust", "python"):
        msg = f"VESPERA_BACKEND is {wanted!r}; use 'auto', 'rust' or 'python', or unset it"
        raise ValueError(msg)
    if wanted == "python":
        return "python", load("python")
    try:
        return "rust", load("rust")
    except ImportError as error:
        if wanted == "rust":
            msg = (
                f"VESPERA_BACKEND=rust, but the Rust extension cannot be loaded: {error}; "
                "reinstall vespera-file-ops from a compiled wheel or unset VESPERA_BACKEND"
            )
            raise ImportError(msg) from error
        warnings.warn(
            f"vespera_file_ops uses its Python backend: the Rust extension cannot be loaded "
            f"({error}). Results are the same, only slower; VESPERA_BACKEND=python silences this",
            RuntimeWarning,
            stacklevel=2,
        )
        return "python", load("python")
