"""Responsible for the trace context that an agent's CLI continues, so that its spans are ours.

OpenTelemetry is nobody's dependency here: a program that has a span has imported it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from vespera_agent_spawner._logging import logger_for

__all__ = ["trace_context"]

_NAMES = ("TRACEPARENT", "TRACESTATE")

_log = logger_for("agent_spawner.tracing")


def trace_context(own: Mapping[str, str]) -> dict[str, str]:
    """``TRACEPARENT`` and ``TRACESTATE`` of the active span; empty without one, and where the
    agent's ``own`` environment says something else."""
    if "opentelemetry.trace" not in sys.modules or any(name in own for name in _NAMES):
        return {}
    carrier: dict[str, str] = {}
    try:
        from opentelemetry import propagate, trace

        # Most programs that have it loaded have no span: asking costs less than injecting nothing.
        if not trace.get_current_span().get_span_context().is_valid:
            return {}
        propagate.inject(carrier)
    except Exception:
        # Somebody else's propagator: whatever is wrong with it, the agent starts.
        _log.debug("no trace context", exc_info=True)
        return {}
    if "traceparent" not in carrier:
        return {}
    found = {"TRACEPARENT": carrier["traceparent"]}
    state = carrier.get("tracestate")
    if state is not None or "TRACESTATE" in os.environ:
        # An inherited state belongs to another trace.
        found["TRACESTATE"] = state or ""
    return found
