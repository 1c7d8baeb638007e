"""Responsible for the direction of asv's series: asv takes more for worse, in every one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vespera_file_ops._native", reason="the benchmarks compare both backends")
from benchmarks import agent_ratios, file_ratios, find_ratios, finding
from benchmarks.accounting import Cost

# What took the peer a second took us three, in all rounds.
PEER, OURS = [1.0, 2.0, 4.0], [3.0, 6.0, 12.0]


def costs(**seconds: list[float]) -> dict[str, list[Cost]]:
    """As rounds give them."""
    return {name: [Cost(wall=wall) for wall in walls] for name, walls in seconds.items()}


def test_slower_agents_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    played = SimpleNamespace(costs=costs(asyncio=PEER, rust=OURS))
    monkeypatch.setattr(agent_ratios, "play", lambda *_: played)
    series = agent_ratios.Ratios()
    for track in (series.track_starts, series.track_starts_busy, series.track_sessions):
        assert track("rust") == 3.0


def test_slower_files_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_ratios, "interleaved", lambda *_: {"peer": PEER, "rust": OURS})
    assert file_ratios.Ratios()._ratio({}, "rust") == pytest.approx(3.0)


def test_slower_finding_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = costs(rust=OURS, pathlib=PEER)
    monkeypatch.setattr(finding, "ratios", lambda *_: taken)
    series = find_ratios.Ratios()
    series.names = Path()
    assert series.track_glob_beside_pathlib("rust") == 3.0
