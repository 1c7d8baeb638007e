"""The trace of whoever starts an agent goes on in its CLI."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fleets import Fleet

trace = pytest.importorskip("opentelemetry.trace")

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


def environment(fleet: Fleet, state: dict[str, str] | None, **own: str) -> dict[str, str]:
    """What an agent that was started within a span finds, or without one (None)."""

    async def main() -> dict[str, str]:
        async with fleet.supervisor() as sup:
            config = fleet.config("environment")
            config = config._with(environment={**config.environment, **own})
            [result] = await sup.run([config])
        found: dict[str, str] = json.loads(result.result or "")
        return found

    if state is None:
        return asyncio.run(main())
    context: Any = trace.SpanContext(
        TRACE, SPAN, False, trace.TraceFlags(1), trace.TraceState(list(state.items()))
    )
    with trace.use_span(trace.NonRecordingSpan(context)):
        return asyncio.run(main())


def test_the_active_span_is_the_parent(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACESTATE", "of=another")
    found = environment(fleet, {"us": "1"})
    assert found["TRACEPARENT"] == f"00-{TRACE:032x}-{SPAN:016x}-01"
    assert found["TRACESTATE"] == "us=1"


def test_an_inherited_state_is_not_of_this_trace(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACESTATE", "of=another")
    assert environment(fleet, {})["TRACESTATE"] == ""


def test_an_agents_own_environment_wins(fleet: Fleet) -> None:
    found = environment(fleet, {"us": "1"}, TRACEPARENT="mine")
    assert found["TRACEPARENT"] == "mine"
    assert "TRACESTATE" not in found


def test_without_a_span_nothing_is_said(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", "inherited")
    assert environment(fleet, None)["TRACEPARENT"] == "inherited"


def test_a_broken_propagator_starts_agents_all_the_same(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(carrier: dict[str, str]) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("opentelemetry.propagate.inject", broken)
    monkeypatch.delenv("TRACEPARENT", raising=False)
    assert "TRACEPARENT" not in environment(fleet, {"us": "1"})
