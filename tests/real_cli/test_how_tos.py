"""What the how-tos show runs as it stands there: the real CLI, a scripted model, own HOME."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import Failure, Reply, Script, ScriptedModel, Text, ToolUse

pytestmark = pytest.mark.claude

HOW_TOS = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    text = (HOW_TOS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def environment(claude: str, model: ScriptedModel, place: Surroundings) -> dict[str, str]:
    """What a reader has: both commands on PATH, a HOME, a project."""
    programs = place.root / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude)
    vespera = programs / "vespera"
    vespera.write_text(f'#!/bin/sh\nexec {sys.executable} -m vespera_server "$@"\n')
    vespera.chmod(0o755)
    (place.work / "company-ca.pem").touch()
    found = place.environment(model.base_url)
    # The CLI keeps its configuration where a reader's would be.
    del found["CLAUDE_CONFIG_DIR"]
    # A suite without the extension says so: its hosts would warn that they do without.
    chosen = {key: value for key, value in os.environ.items() if key == "VESPERA_BACKEND"}
    return found | chosen | {"PATH": f"{programs}:{found['PATH']}"}


def bash(script: str, place: Surroundings, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=place.work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("number", [0, 1])
def test_claude_desktops_configuration_starts_a_server(
    number: int, place: Surroundings, environment: dict[str, str]
) -> None:
    (entry,) = json.loads(blocks("claude-desktop.md", "json")[number])["mcpServers"].values()
    vespera = shutil.which("vespera", path=environment["PATH"])
    known = {"/path/to/vespera": vespera, "/path/to/project": str(place.work)}
    command, *arguments = [known.get(word) or word for word in (entry["command"], *entry["args"])]

    async def main() -> Any:
        parameters = StdioServerParameters(command=command, args=arguments, env=environment)
        async with Client(parameters) as client:
            return await client.call_tool("file_info", {"path": str(place.work)})

    assert asyncio.run(main()).structured_content["is_directory"] is True


def test_claude_code_connects_over_stdio(place: Surroundings, environment: dict[str, str]) -> None:
    shown = bash(blocks("claude-code.md", "bash")[0], place, environment)
    assert re.search(r"vespera: .*Connected", shown), shown


@pytest.fixture
def address(place: Surroundings, environment: dict[str, str]) -> Iterator[str]:
    """The page's server, on a port that is free."""
    with served(blocks("claude-code.md", "bash")[1], place, environment) as found:
        yield found


@contextlib.contextmanager
def served(script: str, place: Surroundings, environment: dict[str, str]) -> Iterator[str]:
    """The address of a page's server, on a port that is free."""
    command = script.replace(":8765", ":0")
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=place.work,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        # Without the extension a warning of the fallback comes first.
        said = ""
        while (line := server.stderr.readline()) and "/mcp" not in line:
            said += line
        found = re.search(r"http://(\S+)/mcp", line)
        assert found, said + line
        assert ".local/state/vespera/serve-token" in line
        yield found[1]
        server.terminate()
        server.wait(20)


def test_claude_code_connects_over_http(
    place: Surroundings, environment: dict[str, str], address: str
) -> None:
    script = blocks("claude-code.md", "bash")[2].replace("127.0.0.1:8765", address)
    shown = bash(script, place, environment)
    assert re.search(r"vespera-http: .*Connected", shown), shown


def test_claude_code_server_keeps_its_batches(
    place: Surroundings, environment: dict[str, str]
) -> None:
    with served(blocks("claude-code.md", "bash")[3], place, environment):
        database = Path(environment["HOME"]) / ".local/state/vespera/batches.db"
        assert database.stat().st_mode & 0o777 == 0o600


def test_the_proxy_page(place: Surroundings, environment: dict[str, str]) -> None:
    doctor, bedrock = blocks("proxies.md", "bash")
    shown = bash(doctor, place, environment)
    assert re.search(r"agents get.*proxy: HTTPS_PROXY, NO_PROXY", shown), shown
    assert "proxy.example" not in shown
    bash(bedrock, place, environment)
    (snippet,) = blocks("proxies.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['HTTPS_PROXY']\n"


def python(page: str, number: int, environment: dict[str, str], place: Surroundings) -> str:
    """What a block of Python prints, for a reader with the CLI on PATH."""
    done = subprocess.run(
        [sys.executable, "-c", blocks(page, "python")[number]],
        cwd=place.work,
        env=environment | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_hooks_and_tools(
    model: ScriptedModel, place: Surroundings, environment: dict[str, str]
) -> None:
    page = "hooks-and-tools.md"
    tell = Script(
        Reply(ToolUse("mcp__host__weather", {"town": "Bern", "days": 1})),
        lambda request: Reply(Text(request.last_tool_result)),
    )
    model.add("default", tell)
    shown = python(page, 0, environment, place)
    assert shown == 'completed {"town":"Bern","days":1,"degrees":21}\n'

    tidy = ToolUse("Bash", {"command": "rm -rf .", "description": "tidies"})
    model.add("default", Script(Reply(tidy), Reply(Text("I may not"))))
    assert python(page, 1, environment, place) == "PreToolUse Bash\nStop \ncompleted\n"


def test_worktrees(model: ScriptedModel, place: Surroundings, environment: dict[str, str]) -> None:
    who = ["-c", "user.name=me", "-c", "user.email=me@example.invalid"]
    for words in (["init", "--quiet"], [*who, "commit", "--quiet", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=place.work, env=environment, check=True)
    model.add("default", Script(Reply(Text("done"))))
    names = {f"GIT_{role}_{part}": "me" for role in ("AUTHOR", "COMMITTER") for part in ("NAME",)}
    names |= {f"GIT_{role}_EMAIL": "me@example.invalid" for role in ("AUTHOR", "COMMITTER")}
    shown = python("worktrees.md", 0, environment | names, place)
    assert shown == "completed done\n" * 2
    told = ["git", "-C", str(place.work)]
    branches = subprocess.run([*told, "branch"], check=True, capture_output=True, text=True).stdout
    assert branches.count("agent/worktree-") == 2
    trees = subprocess.run([*told, "worktree", "list"], check=True, capture_output=True, text=True)
    assert len(trees.stdout.splitlines()) == 1


def test_the_official_sdk(
    model: ScriptedModel, place: Surroundings, environment: dict[str, str]
) -> None:
    model.add("default", Script(Reply(Text("hello"))))
    shown = python("official-sdk.md", 0, environment, place)
    assert re.fullmatch(r"hello\n0\.\d+ completed\n", shown), shown
    assert python("official-sdk.md", 1, environment, place) == "hello\n" * 2


EXAMPLES = HOW_TOS.parents[1] / "examples"


def example(name: str, environment: dict[str, str], place: Surroundings, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command,
        cwd=place.work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_of_hooks_and_tools(
    model: ScriptedModel, place: Surroundings, environment: dict[str, str]
) -> None:
    leave = ToolUse("Bash", {"command": "ls ..", "description": "looks"})
    script = Script(
        Reply(ToolUse("mcp__host__in_stock", {"part": "bolt"})),
        Reply(leave),
        Reply(ToolUse("mcp__host__order", {"part": "bolt", "pieces": 120})),
        lambda request: Reply(Text(" / ".join(request.tool_results))),
    )
    model.add("default", script)
    shown = example("hooks_and_tools.py", environment, place)
    assert "mcp__host__in_stock: 1\nmcp__host__order: 1\n" in shown
    assert "stay in this directory" in shown
    assert '"arrives":"Friday"' in shown


def test_the_example_of_the_official_sdk(
    model: ScriptedModel, place: Surroundings, environment: dict[str, str]
) -> None:
    model.add("default", Script(Reply(Text("hello"))))
    shown = example("sdk_on_engine.py", environment, place)
    assert len(re.findall(r"^agent-\d \(\w+, 0\.\d{4} USD\): hello$", shown, re.M)) == 2, shown
    model.add("refused", Script(then=Failure(400)))
    shown = example("sdk_on_engine.py", environment, place, "[[script:refused]] x", "Say hello")
    refused, answered = shown.splitlines()
    assert refused.startswith("'[[script:refused]] x' failed: ")
    assert answered.endswith(": hello")
