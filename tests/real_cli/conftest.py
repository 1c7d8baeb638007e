"""The real Claude CLI, a scripted model, and both backends, for the tests in this directory."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from vespera_agent_spawner import AgentConfig
from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import ScriptedModel


@pytest.fixture(scope="session")
def claude() -> str:
    """The path of the real CLI (PATH, or the claude-agent-sdk wheel)."""
    try:
        return find_program(os.environ.get("VESPERA_TEST_CLAUDE"), os.environ)
    except AgentError as error:
        if os.environ.get("VESPERA_REQUIRE_CLAUDE") == "1":
            raise
        pytest.skip(f"needs the real Claude CLI (VESPERA_REQUIRE_CLAUDE=1 to insist): {error}")


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn."""
    name = str(request.param)
    if name == "rust" and not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        if os.environ.get("VESPERA_REQUIRE_RUST") == "1":
            pytest.fail("VESPERA_REQUIRE_RUST=1, but the extension is missing or broken")
        pytest.skip("needs the compiled extension (VESPERA_REQUIRE_RUST=1 to insist)")
    return name


@pytest.fixture
def place() -> Iterator[Surroundings]:
    """HOME, configuration and work directories; a short path, since the CLI makes sockets there."""
    with tempfile.TemporaryDirectory(prefix="vt-") as root:
        yield Surroundings.create(Path(root).resolve())


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    """A running model without scripts; `model.add(name, script)`."""
    with ScriptedModel() as running:
        yield running


class Agents:
    """Spawns agents with the tests' surroundings and ends them all afterwards."""

    def __init__(
        self, claude: str, backend: str, model: ScriptedModel, place: Surroundings
    ) -> None:
        self.backend = backend
        self.place = place
        self._claude = claude
        self._model = model
        self._ids: list[str] = []

    def spawn(
        self, *, environment: dict[str, str] | None = None, timeout: float = 60, **config: Any
    ) -> str:
        """Starts an agent in a directory of its own; returns its id."""
        agent_id = f"real-{uuid.uuid4().hex[:8]}"
        directory = self.place.copy_for(agent_id)
        directory.mkdir(parents=True)
        self._ids.append(agent_id)
        spawner.spawn_claude_agent(
            agent_id,
            timeout_seconds=timeout,
            backend=self.backend,
            config=spawner.AgentConfig(
                agent_id=agent_id,
                program=self._claude,
                working_directory=str(directory),
                environment=self.place.environment(self._model.base_url) | (environment or {}),
                inherit_environment=False,
                allowed_tools=("Bash", "Edit", "Read", "Write"),
                **config,
            ),
        )
        return agent_id

    def directory(self, agent_id: str) -> Path:
        """Where the agent works."""
        return self.place.copy_for(agent_id)

    def end_all(self) -> None:
        """Shuts everything down; what is down already answers again."""
        for agent_id in self._ids:
            spawner.shutdown_claude_agent(agent_id, grace_seconds=2)


@pytest.fixture
def agents(
    claude: str, backend: str, model: ScriptedModel, place: Surroundings
) -> Iterator[Agents]:
    """A factory of agents on the backend of this test."""
    crew = Agents(claude, backend, model, place)
    yield crew
    crew.end_all()


@pytest.fixture
def configure(claude: str, model: ScriptedModel, place: Surroundings) -> Callable[..., AgentConfig]:
    def make(name: str, prompt: str | None, **fields: Any) -> AgentConfig:
        directory = place.copy_for(name)
        directory.mkdir(parents=True)
        return AgentConfig(
            program=claude,
            prompt=prompt,
            working_directory=directory,
            environment=place.environment(model.base_url),
            inherit_environment=False,
            timeouts={"turn": 60, "startup": 60},
            **fields,
        )

    return make
