"""Responsible for the engine's metrics as a Prometheus endpoint on loopback."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

import vespera_agent_spawner as spawner

__all__ = ["EngineMetrics", "serving_metrics"]

_SERIES = re.compile(r"(?P<name>\w+?)(?P<part>_sum|_count)?(?:\{(?P<labels>.*)\})?")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

#: What there may be, and what it means; anything else that the engine counts is its own business.
DESCRIPTIONS = {
    "vespera_agents": "Agents by state.",
    "vespera_spawn_seconds": "Seconds from spawn to ready.",
    "vespera_spawns_total": "Spawns by outcome.",
    "vespera_events_total": "Events by kind.",
    "vespera_event_bytes_total": "Bytes of events.",
    "vespera_event_lag_seconds": "Seconds from reading an event to its delivery.",
    "vespera_queue_depth": "Undelivered events.",
    "vespera_dropped_events_total": "Events that were dropped.",
    "vespera_spilled_bytes_total": "Bytes of events that went to disk.",
    "vespera_runs_total": "Turns by outcome.",
    "vespera_run_seconds": "Seconds of turns.",
    "vespera_tree_rss_bytes": "Resident bytes of process trees.",
    "vespera_orphans_reaped_total": "Processes that agents had left behind.",
    "vespera_kills_total": "Kills by rung of the ladder.",
    "vespera_retries_total": "Runs that were tried again.",
    "vespera_cost_usd_total": "US dollars of all turns, as the CLI tells at their ends.",
    "vespera_tokens_total": "Tokens of all turns by direction, without those read from a cache.",
    "vespera_pool_warm": "Initialised processes that wait.",
    "vespera_guardian_restarts_total": "Guardians that had to be started again.",
}


class EngineMetrics(Collector):
    """What ``vespera_agent_spawner.metrics()`` says at each scrape, nothing that it does not."""

    def collect(self) -> Iterator[Metric]:
        series: dict[str, list[tuple[str, dict[str, str], float]]] = {}
        for text, value in spawner.metrics().items():
            found = _SERIES.fullmatch(text)
            if found is not None and found["name"] in DESCRIPTIONS:
                labels = dict(_LABEL.findall(found["labels"] or ""))
                series.setdefault(found["name"], []).append((found["part"] or "", labels, value))
        for name, samples in series.items():
            yield _family(name, samples)


@contextlib.contextmanager
def serving_metrics(port: int | None) -> Iterator[str | None]:
    """Serve on 127.0.0.1 while the context lasts; yields the address. None serves nothing.

    Raises ``OSError`` when the port is taken.
    """
    if port is None:
        yield None
        return
    registry = CollectorRegistry()
    registry.register(EngineMetrics())
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _family(name: str, samples: list[tuple[str, dict[str, str], float]]) -> Metric:
    text = DESCRIPTIONS[name]
    if any(part for part, _, _ in samples):
        values = {part: value for part, _, value in samples}
        return SummaryMetricFamily(
            name, text, count_value=int(values.get("_count", 0)), sum_value=values.get("_sum", 0.0)
        )
    labels = sorted({label for _, given, _ in samples for label in given})
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, text, labels=labels)
    for _, given, value in samples:
        family.add_metric([given.get(label, "") for label in labels], value)
    return family
