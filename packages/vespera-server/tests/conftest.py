"""Responsible for what the tests share: their neighbours can be imported."""

from __future__ import annotations

import sys
from pathlib import Path

# The root chooses the import mode "importlib", in which tests cannot import their neighbours.
sys.path.insert(0, str(Path(__file__).parent))
