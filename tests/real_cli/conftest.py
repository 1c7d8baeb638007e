"""The real Claude CLI, a scripted model, and both backends, for the tests in this directory."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

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


class Serving:
    """`vespera serve` in a process of its own, reached as the test's transport says."""

    def __init__(
        self, transport: str, claude: str, backend: str, model: ScriptedModel, place: Surroundings
    ) -> None:
        self.transport = transport
        self.place = place
        self.environment = place.environment(model.base_url) | {
            "PYTHONPATH": os.environ.get("PYTHONPATH", "")
        }
        self.command = [
            *(sys.executable, "-m", "vespera_server", "serve", "--claude", claude),
            *("--root", str(place.work), "--backend", backend),
            # What the agents need besides the usual groups, so that they stay on loopback.
            *("--pass-env", "DISABLE_AUTOUPDATER"),
        ]
        self.token_file = place.root / "token"
        self.stderr = ""
        self.process: subprocess.Popen[str] | None = None

    @contextlib.asynccontextmanager
    async def client(
        self, *flags: str, mode: str = "auto", **settings: Any
    ) -> AsyncIterator[Client]:
        """A client of a new server; both end with the block."""
        if self.transport == "stdio":
            with (self.place.root / "stderr").open("w+") as log:
                async with Client(self.stdio(*flags, log=log), mode=mode, **settings) as client:
                    yield client
                log.seek(0)
                self.stderr = log.read()
            return
        with self.http(*flags) as url:
            async with self.client_of(url, mode=mode, **settings) as client:
                yield client

    def stdio(self, *flags: str, log: Any = sys.stderr) -> Any:
        """The SDK's stdio transport to a new server."""
        from mcp import stdio_client

        command, *arguments = self.command
        parameters = StdioServerParameters(
            command=command, args=[*arguments, *flags], env=self.environment, cwd=self.place.root
        )
        return stdio_client(parameters, errlog=log)

    @contextlib.contextmanager
    def http(self, *flags: str) -> Iterator[str]:
        """A server on a free port; its address."""
        command = [*self.command, "--http", "127.0.0.1:0", "--token-file", str(self.token_file)]
        with subprocess.Popen(
            [*command, *flags],
            env=self.environment,
            cwd=self.place.root,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.process = process
            assert process.stderr is not None
            lines: list[str] = []
            try:
                for line in process.stderr:
                    lines.append(line)
                    if found := re.search(r"http://\S+/mcp", line):
                        break
                else:
                    pytest.fail("".join(lines))
                rest = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
                rest.start()
                yield found[0]
            finally:
                process.terminate()
                process.wait(30)
                rest.join()
                self.stderr = "".join(lines)

    @contextlib.asynccontextmanager
    async def client_of(
        self, url: str, *, token: str | None = None, mode: str = "auto", **settings: Any
    ) -> AsyncIterator[Client]:
        """A client of a server that runs."""
        token = self.token_file.read_text().strip() if token is None else token
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as web,
            Client(streamable_http_client(url, http_client=web), mode=mode, **settings) as client,
        ):
            yield client


@pytest.fixture(params=["stdio", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn."""
    return str(request.param)


@pytest.fixture
def serving(
    transport: str, claude: str, backend: str, model: ScriptedModel, place: Surroundings
) -> Serving:
    """`vespera serve`, not yet started."""
    return Serving(transport, claude, backend, model, place)
