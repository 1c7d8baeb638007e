"""Responsible for what the tests share: both backends, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vespera_agent_spawner import backends

# The root chooses the import mode "importlib", in which tests cannot import their neighbours.
sys.path.insert(0, str(Path(__file__).parent))

from fake_agents import NUMBERS, Agents, eventually, traced
from fleets import Fleet


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each test runs on both backends; Rust is left out only where it cannot be there."""
    name = str(request.param)
    problem = backends.rust_problem()
    if name == "rust" and problem is not None:
        if os.environ.get("VESPERA_REQUIRE_RUST"):
            raise problem
        pytest.skip(f"no Rust backend here: {problem}")
    return name


@pytest.fixture
def agents(backend: str, request: pytest.FixtureRequest) -> Iterator[Agents]:
    """Agents of one backend; the test fails when any process of them outlives it."""
    trace = f"{os.getpid()}-{next(NUMBERS)}-{request.node.name}"
    made = Agents(backend, trace)
    try:
        yield made
    finally:
        try:
            made.end_all()
            left = eventually(lambda: not traced(trace))
        finally:
            survivors = traced(trace)
            for pid in survivors:
                os.kill(pid, signal.SIGKILL)
    assert left, f"processes outlived the test: {survivors}"


@pytest.fixture
def fleet(backend: str, request: pytest.FixtureRequest) -> Fleet:
    return Fleet(backend, f"{request.node.name}-{id(request)}")
