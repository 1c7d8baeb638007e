"""docs/how-to/containers.md: its Dockerfile is built up, run, stopped, killed and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from dockerfile import Container, read_dockerfile

from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse
from vespera_server.tasks import TaskQueue

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docs/how-to/Dockerfile"
TASKS = """
[[tasks]]
id = "a"
prompt = "go"
allowed_tools = ["Bash"]
"""

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def container(tmp_path: Path, offline: dict[str, str]) -> tuple[Container, Path]:
    """The Dockerfile's image, and its volume."""
    if not Container.possible(tmp_path / "probe"):
        pytest.skip("needs root and overlay mounts in a namespace")
    volume = tmp_path / "state"
    volume.mkdir()
    made = Container(tmp_path / "image")
    # The image gets this test's dependencies, and so this interpreter: another may not load them.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    left_out = made.build(read_dockerfile(DOCKERFILE), {**offline, "PATH": path})
    assert len(left_out) == 1, "only the packages of the base image are left out"
    tried = made.try_as_user(["/opt/vespera/bin/python", "-c", ""])
    if tried.returncode != 0:
        # As those of pyenv and uv beneath /root, which only root may enter.
        pytest.skip(f"user {made.user} may not run {sys.base_prefix}: {tried.stderr.strip()}")
    assert (made.user, made.volumes, made.directory) == ("agent", ["/state"], "/batch")
    batch = made.folder / "upper" / "batch"
    (batch / "tasks.toml").write_text(TASKS)
    status = batch.stat()
    os.chown(batch / "tasks.toml", status.st_uid, status.st_gid)
    os.chown(volume, status.st_uid, status.st_gid)
    made.binds = {"/state": volume, "/opt/dependencies": Path(sysconfig.get_path("purelib"))}
    return made, volume


def process_1(container: subprocess.Popen[str]) -> int:
    """The number outside of the namespace's first process, once it is our program."""
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert container.poll() is None, container.communicate()[0]
        for child in children.read_text().split():
            if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"/opt/vespera/bin/python"):
                return int(child)
        time.sleep(0.05)
    raise AssertionError("the container's program did not start")


def test_the_image_is_built_run_stopped_killed_and_gone_on_with(
    container: tuple[Container, Path],
) -> None:
    made, volume = container
    heard: list[int] = []

    def step(request: ModelRequest) -> Reply:
        heard.append(sum(message.get("role") == "assistant" for message in request.messages))
        if heard[-1] == 0:
            command = "id -un; basename $HOME"
            return Reply(ToolUse("Bash", {"command": command, "description": "who"}))
        thinks_long = heard.count(1) <= 2 and len(heard) < 5
        said = request.tool_results[0].split() if request.tool_results else []
        return Reply(Text(" ".join(said)), delay=60 if thinks_long else 0)

    def wait_for_thought(number: int) -> None:
        deadline = time.monotonic() + 90
        while len([place for place in heard if place > 0]) < number:
            assert time.monotonic() < deadline, heard
            time.sleep(0.05)

    with ScriptedModel({"default": Script(then=step)}) as model:
        environment = {
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "VESPERA_SUPERVISOR__MEMORY_RESERVE": "0",
            "PYTHONPATH": "/opt/dependencies",
        }
        with made.start(environment=environment) as stopped:
            first = process_1(stopped)
            wait_for_thought(1)
            os.kill(first, signal.SIGTERM)  # docker stop
            output, _ = stopped.communicate(timeout=60)
        assert stopped.returncode == 128 + signal.SIGTERM, output
        assert "1 task is left" in output
        with made.start(environment=environment) as killed:
            first = process_1(killed)
            wait_for_thought(2)
            os.kill(first, signal.SIGKILL)  # docker kill: the namespace dies with it
            output, _ = killed.communicate(timeout=60)
        assert "a: resumed, attempt 1" in output
        with made.start(environment=environment) as last:
            output, _ = last.communicate(timeout=120)
    assert last.returncode == 0, output
    with TaskQueue(volume / "batch.db") as queue:
        task = queue.task("a")
        kinds = [event.kind for event in queue.events("a")]
    assert task.outcome == "completed"
    assert kinds.count("ended") == 1
    assert kinds.count("resumed") == 2
    assert task.result["result"] == "agent agent"


def test_the_page_shows_what_the_file_does() -> None:
    page = (ROOT / "docs/how-to/containers.md").read_text()
    file = DOCKERFILE.read_text()
    for said in ("/state", "/batch"):
        assert said in page
        assert said in file
    instructions = {step.word: step.rest for step in read_dockerfile(DOCKERFILE)}
    assert instructions["ENTRYPOINT"] == '["vespera", "run"]'
    assert "docker build -t agents docs/how-to" in page
