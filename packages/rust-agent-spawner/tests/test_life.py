"""Lives: starts that fail, ends that leave nothing, ids that are known or free."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

import vespera_agent_spawner as spawner
from fake_agents import FAKE, Agents, eventually, traced


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def test_a_missing_program_says_where_it_looked_and_how_to_install(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("vespera_agent_spawner.adapters.locate._usual_places", lambda _: iter(()))
    with pytest.raises(FileNotFoundError) as caught:
        spawner.spawn_claude_agent("missing", backend=backend)
    assert isinstance(caught.value, spawner.SpawnError)
    assert str(tmp_path) in str(caught.value)
    assert "install" in str(caught.value)
    assert spawner.agent_status("missing").state == "spawn_failed"
    assert spawner.shutdown_claude_agent("missing").by == "spawn"


def test_a_program_that_is_not_executable_is_named(backend: str, tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("no")
    with pytest.raises(spawner.SpawnError, match="executable") as caught:
        spawner.spawn_claude_agent("plain", str(program), backend=backend)
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_script_whose_interpreter_is_missing(backend: str, tmp_path: Path) -> None:
    program = tmp_path / "claude"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    with pytest.raises(spawner.SpawnError) as caught:
        spawner.spawn_claude_agent("script", str(program), backend=backend)
    assert caught.value.errno == 2
    assert caught.value.stage == "exec"


def test_a_missing_working_directory_is_named(backend: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(spawner.SpawnError, match="gone") as caught:
        spawner.spawn_claude_agent(
            "directory", sys.executable, working_directory=gone, backend=backend
        )
    assert caught.value.stage == "chdir"


def test_a_program_that_exits_at_once_gives_its_reason(agents: Agents) -> None:
    began = time.monotonic()
    with pytest.raises(spawner.SpawnError, match="Not logged in"):
        agents.spawn("exit", agent_id="early")
    assert time.monotonic() - began < 5
    assert spawner.agent_status("early").state == "spawn_failed"


def test_a_grandchild_that_holds_the_pipes_delays_no_news_of_an_exit(agents: Agents) -> None:
    with pytest.raises(spawner.SpawnError, match="bad flag"):
        agents.spawn("exit-holding-pipes")


def test_a_refused_initialize_is_a_spawn_error(agents: Agents) -> None:
    with pytest.raises(spawner.SpawnError, match="unsupported initialize"):
        agents.spawn("refuse")


def test_silence_ends_at_the_startup_limit_and_the_tree_with_it(agents: Agents) -> None:
    with pytest.raises(spawner.AgentTimeout, match="MCP server") as caught:
        agents.spawn("silent", timeouts={"startup": 0.5})
    assert caught.value.which == "startup"
    assert eventually(lambda: not traced(agents.trace))


def test_the_usual_finally_never_hides_the_cause(agents: Agents) -> None:
    statuses = []

    def as_users_write_it() -> None:
        try:
            agents.spawn("exit", agent_id="hidden")
        finally:
            statuses.append(spawner.shutdown_claude_agent("hidden"))

    with pytest.raises(spawner.SpawnError, match="Not logged in"):
        as_users_write_it()
    [status] = statuses
    assert (status.code, status.by) == (None, "spawn")


def test_two_agents_cannot_have_one_id(agents: Agents) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.AgentExists, match=name):
        agents.spawn(agent_id=name)
    assert agents.say(name, "echo a")["result"] == "echo a"


def test_an_unknown_id_is_told_in_plain_words(backend: str) -> None:
    for call in (
        lambda: spawner.execute_claude_json("nobody", {"prompt": "a"}),
        lambda: spawner.shutdown_claude_agent("nobody"),
        lambda: spawner.agent_status("nobody"),
    ):
        with pytest.raises(KeyError) as caught:
            call()
        assert isinstance(caught.value, spawner.AgentNotFound)
        assert str(caught.value).startswith("no agent 'nobody'")


def test_shutdown_ends_the_input_and_the_agent_leaves_by_itself(agents: Agents) -> None:
    name = agents.spawn()
    pid = spawner.agent_status(name).pid
    assert pid is not None
    status = spawner.shutdown_claude_agent(name)
    assert (status.code, status.by, status.success) == (0, "shutdown", True)
    assert not alive(pid)
    assert spawner.agent_status(name).state == "ended"


def test_a_second_shutdown_gives_the_same_answer(agents: Agents) -> None:
    name = agents.spawn()
    assert spawner.shutdown_claude_agent(name) == spawner.shutdown_claude_agent(name)


def test_an_ended_id_is_free_again(agents: Agents) -> None:
    name = agents.spawn()
    first = spawner.agent_status(name).session_id
    spawner.shutdown_claude_agent(name)
    agents.spawn(agent_id=name)
    assert spawner.agent_status(name).session_id != first
    assert spawner.agent_status(name).state == "ready"


def test_an_agent_that_stays_gets_sigterm(agents: Agents) -> None:
    status = spawner.shutdown_claude_agent(agents.spawn("term"), 2)
    assert (status.code, status.by) == (143, "terminate")


def test_an_agent_that_ignores_sigterm_gets_force(agents: Agents) -> None:
    status = spawner.shutdown_claude_agent(agents.spawn("stubborn"), 0.5)
    assert (status.signal, status.by) == (9, "kill")


def test_a_process_left_behind_with_a_session_of_its_own_is_ended(agents: Agents) -> None:
    name = agents.spawn()
    left = int(agents.say(name, "leave")["result"] or "")
    assert alive(left)
    assert spawner.shutdown_claude_agent(name).code == 0
    assert eventually(lambda: not alive(left))


def test_a_double_forked_process_is_ended(agents: Agents) -> None:
    name = agents.spawn()
    left = int(agents.say(name, "orphan")["result"] or "")
    assert alive(left)
    spawner.shutdown_claude_agent(name)
    assert eventually(lambda: not alive(left))


def test_a_turn_in_flight_ends_with_a_shutdown(agents: Agents) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.AgentTimeout):
        agents.say(name, "deaf", timeout=0.1)
    assert spawner.agent_status(name).state == "ended"


def test_the_list_shows_the_living(agents: Agents) -> None:
    name = agents.spawn()
    [mine] = [info for info in spawner.list_agents() if info.agent_id == name]
    assert mine.state == "ready"
    assert mine.backend == agents.backend
    assert mine.containment in {"cgroup", "subreaper", "pgroup"}
    assert mine.pid is not None
    assert alive(mine.pid)
    assert abs(mine.started_at - time.time()) < 60
    spawner.shutdown_claude_agent(name)
    assert name not in [info.agent_id for info in spawner.list_agents()]


def test_the_environment_is_the_scrubbed_copy(
    agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDECODE", "1")
    monkeypatch.setenv("KEPT_FROM_HOST", "yes")
    name = agents.spawn(environment={"OWN": "1"})
    seen = json.loads(agents.say(name, "environment")["result"] or "")
    assert "CLAUDECODE" not in seen
    assert seen["KEPT_FROM_HOST"] == "yes"
    assert seen["OWN"] == "1"


def test_the_working_directory_is_taken(agents: Agents, tmp_path: Path) -> None:
    name = agents.spawn(working_directory=str(tmp_path))
    assert json.loads(agents.say(name, "environment")["result"] or "").get("PWD") in (
        str(tmp_path),
        None,
    )
    pid = spawner.agent_status(name).pid
    assert Path(f"/proc/{pid}/cwd").resolve() == tmp_path


def test_long_and_secret_values_travel_in_private_files(agents: Agents) -> None:
    prompt = "s" * 200_000
    name = agents.spawn(system_prompt=prompt, mcp_config={"mcpServers": {}})
    argv = json.loads(agents.say(name, "argv")["result"] or "")
    [system] = [w.partition("=")[2] for w in argv if w.startswith("--system-prompt-file=")]
    [servers] = [w.partition("=")[2] for w in argv if w.startswith("--mcp-config=")]
    assert Path(system).read_text() == prompt
    assert json.loads(Path(servers).read_text()) == {"mcpServers": {}}
    assert Path(servers).stat().st_mode & 0o777 == 0o600
    assert Path(servers).parent.stat().st_mode & 0o777 == 0o700
    spawner.shutdown_claude_agent(name)
    assert not Path(servers).parent.exists()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"config": {"agent_id": "other"}}, "agent_id"),
        ({"command": "a", "config": {"program": "b"}}, "command"),
        ({"timeout_seconds": 5, "config": {"timeouts": {"turn": 6}}}, "timeout_seconds"),
        ({"working_directory": "/", "config": {"working_directory": "/tmp"}}, "working_directory"),
        ({"config": {"prompt": "x"}}, "config.prompt"),
        ({"config": {"on_permission": print}}, "config.on_permission"),
        ({"config": {"workspace": Path}}, "config.workspace"),
        ({"config": {"retry": {"attempts": 2}}}, "config.retry"),
        ({"config": {"budget": {"tokens": 9}}}, "config.budget.tokens"),
        ({"config": {"budget": {"usd_per_hour": 9}}}, "config.budget.usd_per_hour"),
        ({"config": {"adapter": "raw"}}, "adapter"),
        ({"config": {"extra_args": {"session-id": "x"}}}, "extra_args.session-id"),
        ({"backend": "cobol"}, "backend"),
    ],
)
def test_contradictions_are_refused(backend: str, arguments: dict[str, object], field: str) -> None:
    given: dict[str, object] = {"command": sys.executable, "backend": backend, **arguments}
    if "config" in arguments and "command" not in arguments:
        given["command"] = "claude"
        given["config"] = {"program": sys.executable, "args": [str(FAKE)]} | dict(
            arguments["config"]  # type: ignore[call-overload]
        )
    with pytest.raises(spawner.ConfigError) as caught:
        spawner.spawn_claude_agent("contradiction", **given)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert caught.value.remedy


def test_the_cli_keeps_a_ceiling_in_dollars(agents: Agents) -> None:
    name = agents.spawn(budget={"usd": 2})
    assert "--max-budget-usd=2.0" in json.loads(agents.say(name, "argv")["result"] or "")


def test_limits_of_the_kernel_hold(agents: Agents) -> None:
    limits = {"open_files": 64, "nice": 5}
    pid = spawner.agent_status(agents.spawn(limits=limits)).pid
    held = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[3] for line in held.splitlines() if "open files" in line] == ["64"]
    assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16] == "5"


def test_descriptors_and_zombies_stay_flat(agents: Agents) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    spawner.shutdown_claude_agent(agents.spawn())
    before = open_descriptors()
    for _ in range(5):
        spawner.shutdown_claude_agent(agents.spawn())
        with pytest.raises(spawner.SpawnError):
            agents.spawn("exit")
    assert eventually(lambda: open_descriptors() <= before)
