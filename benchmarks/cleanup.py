"""Responsible for what the chaos ledger says about cleanup, beside the other figures of the page.

Nothing is killed here: `nox -s chaos -- --minutes M` adds trials, and this adds them up, for the
guardian's present sources only.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHAOS = Path(__file__).resolve().parent.parent / "chaos"


def summary() -> dict[str, dict[str, float]]:
    """For each victim: kills, those that left something, and the times to nothing left in ms."""
    sys.path.insert(0, str(CHAOS))
    try:
        import report
    finally:
        sys.path.remove(str(CHAOS))
    return report.summary()
