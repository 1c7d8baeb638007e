"""The log: what happens to agents is told to ``vespera.agent_spawner.*``, in the same words."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_agents import Agents, eventually
from fleets import Fleet
from hosts import Host


class Kept(logging.Handler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.told: list[tuple[str, str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        agent = getattr(record, "agent_id", "")
        self.told.append((record.name, record.levelname, agent, record.getMessage()))

    def has(self, part: str, level: str, agent: str, words: str) -> bool:
        """Records of the engine come a little later, from a thread of their own."""

        def there() -> bool:
            name = f"vespera.agent_spawner.{part}"
            return any(
                (name, level, agent) == told[:3] and words in told[3] for told in list(self.told)
            )

        return bool(eventually(there))


@pytest.fixture
def log() -> Iterator[Kept]:
    handler, logger = Kept(), logging.getLogger("vespera")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_a_life_is_told(fleet: Fleet, log: Kept) -> None:
    async def main() -> int | None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(agent_id="docs"))
            pid = chat.pid
            await chat.run("leave")
            await chat.run("oversize")
            await chat.run("permission")
            await chat.shutdown()
            other = await sup.spawn(fleet.config(agent_id="deaf"))
            other.kill()
            await other.result()
        return pid

    pid = asyncio.run(main())
    assert log.has("agent", "INFO", "docs", f"agent 'docs': started pid {pid}")
    assert log.has("agent", "WARNING", "docs", "a line of 68157440 bytes is over the cap")
    assert log.has("agent", "WARNING", "docs", "asks for Bash: denied")
    assert log.has("agent", "DEBUG", "docs", "ending: shutdown")
    assert log.has("agent", "INFO", "docs", "1 processes that it left behind were ended")
    assert log.has("agent", "INFO", "docs", "ended: exit code 0, after its input was ended")
    assert log.has("agent", "INFO", "deaf", "killed: ")


def test_retries_and_spills_are_told(fleet: Fleet, log: Kept) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(agent_id="a"))
            events = aiter(chat)
            await chat.run("burst 192 65536")
            await chat.run("retry 529 2 1", timeout=0.2)
            del events

    asyncio.run(main())
    assert log.has("agent", "INFO", "a", "its undelivered events go to disk from now on")
    assert log.has("agent", "WARNING", "a", "the CLI retries: overloaded (HTTP 529), try 2 of 10")


def test_a_transcript_that_cannot_go_on_is_told(agents: Agents, tmp_path: Path) -> None:
    code = f"""
import logging, resource
logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.WARNING)
spawn("a", transcript={str(tmp_path / "transcript")!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
tell(length=len(say("a", "big 100000")["result"]))
spawner.shutdown_claude_agent("a")
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"length": 100_000}
        errors = host.ends()
    assert "vespera.agent_spawner.agent WARNING agent 'a': its transcript ends here: " in errors


def test_an_end_of_the_guardian_is_told(fleet: Fleet, log: Kept) -> None:
    if fleet.backend != "rust":
        pytest.skip("the Python backend has no guardian")

    def guardians() -> list[int]:
        own = threading.main_thread().native_id
        children = Path(f"/proc/self/task/{own}/children").read_text().split()
        return [
            int(child)
            for child in children
            if Path(f"/proc/{child}/comm").read_text().startswith("vespera-guard")
        ]

    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(agent_id="a"))
            for pid in guardians():
                os.kill(pid, signal.SIGKILL)
            await chat.result()
            await sup.run([fleet.config("echo b")])

    asyncio.run(main())
    assert log.has("guardian", "WARNING", "-", "the last one died, and its agents with it")


def test_a_gap_is_told(agents: Agents, tmp_path: Path) -> None:
    code = """
import logging
logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.WARNING)
spawn("a")
threading.Timer(0.2, lambda: tell(now=True)).start()
say("a", "later 2.6", timeout=20)
time.sleep(0.2)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        host.signal(signal.SIGSTOP)
        time.sleep(2.5)
        host.signal(signal.SIGCONT)
        errors = host.ends()
    assert "vespera.agent_spawner.reactor WARNING was away for" in errors


def test_nobody_is_told_what_nobody_listens_to(agents: Agents, tmp_path: Path) -> None:
    code = """
spawn("a")
say("a", "oversize")
tell(threads=sorted(thread.name for thread in threading.enumerate()))
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert "vespera-diagnostics" not in host.news()["threads"]
        assert host.ends() == ""


def test_a_host_that_ends_while_it_is_told_much_ends_well(agents: Agents, tmp_path: Path) -> None:
    code = """
import logging
logging.basicConfig(level=logging.DEBUG)
for number in range(8):
    spawn(f"a{number}")
tell(ready=True)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        assert "started pid" in host.ends()
