"""One suite over both backends: `ops` is each of them in turn, `[rust]` and `[python]`.

Without the extension the Rust half is skipped; `VESPERA_REQUIRE_RUST=1` makes that a failure, so
that CI cannot pass by not building.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest


@pytest.fixture(params=["rust", "python"])
def ops(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one backend."""
    try:
        return importlib.import_module(f"vespera_file_ops.backends.{request.param}")
    except ImportError as error:
        if os.environ.get("VESPERA_REQUIRE_RUST") == "1":
            raise
        pytest.skip(f"the Rust extension is not built: {error}")
