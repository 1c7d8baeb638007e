"""The Prometheus endpoint: what the engine counts, on loopback, and nothing invented."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

import vespera_agent_spawner as spawner
from vespera_server.metrics import DESCRIPTIONS, serving_metrics


def scrape(address: str) -> dict[str, float]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_scrape_says_what_the_engine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {
        'vespera_agents{state="ready"}': 2.0,
        'vespera_runs_total{outcome="failed"}': 1.0,
        'vespera_runs_total{outcome="completed"}': 3.0,
        "vespera_run_seconds_sum": 1.5,
        "vespera_run_seconds_count": 4.0,
        "vespera_cost_usd_total": 0.25,
    }
    monkeypatch.setattr(spawner, "metrics", lambda: counted | {"vespera_made_up": 1.0})
    with serving_metrics(0) as address:
        assert address is not None
        assert address.startswith("http://127.0.0.1:")
        assert scrape(address) == counted


def test_the_engines_own_names_are_all_known() -> None:
    with serving_metrics(0) as address:
        assert address is not None
        names = set(scrape(address))
    assert {name for name in spawner.metrics() if name.partition("{")[0] in DESCRIPTIONS} <= names


def test_no_port_serves_nothing() -> None:
    with serving_metrics(None) as address:
        assert address is None
