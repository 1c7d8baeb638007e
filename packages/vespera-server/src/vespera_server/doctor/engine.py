"""Python, the two backends, and the containment tier that each gives on this machine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import vespera_agent_spawner as spawner
from vespera_agent_spawner import backends
from vespera_agent_spawner.errors import AgentError
from vespera_server.doctor.finding import Finding, Status

SECTION = "engine"


def check_engine() -> Iterator[Finding]:
    """Findings about the interpreter and what the spawner can do in it."""
    where = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}"
    if sys.platform == "linux":
        yield Finding(SECTION, "Python", Status.OK, f"{where} ({platform.machine()})")
    else:
        yield Finding(SECTION, "Python", Status.NOTE, f"{where}: never run on this system")
    yield _rust()
    yield Finding(SECTION, "backend python", Status.OK, "always there")
    try:
        chosen = spawner.backend()
    except AgentError as error:  # VESPERA_BACKEND demands what is not there
        remedy = str(error.context.get("remedy") or "unset VESPERA_BACKEND")
        yield Finding(SECTION, "backend auto", Status.PROBLEM, str(error), remedy)
        return
    yield Finding(SECTION, "backend auto", Status.OK, f"means {chosen}")
    yield _tier(chosen)


def _rust() -> Finding:
    problem = backends.rust_problem()
    if problem is not None:
        return Finding(
            SECTION,
            "backend rust",
            Status.WARNING,
            f"not available: {problem}",
            "install a compiled wheel of vespera-agent-spawner (pip install --force-reinstall "
            "vespera-agent-spawner), or build it: a Rust toolchain, then pip install from source",
        )
    return Finding(SECTION, "backend rust", Status.OK, "loaded")


def _tier(chosen: str) -> Finding:
    engine = backends.choose(chosen)
    tier, reason = engine.containment(), engine.containment_reason()
    if tier == "cgroup" or not reason:
        return Finding(SECTION, "containment", Status.OK, tier)
    if tier == "pgroup":
        return Finding(
            SECTION,
            "containment",
            Status.WARNING,
            f"{tier}: a process in a session of its own may outlive its agent; {reason}",
            "use the Rust backend on Linux",
        )
    return Finding(SECTION, "containment", Status.OK, f"{tier} (not cgroup: {reason})")
