"""Responsible for the operator's ceilings: what callers get, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_file_ops import OutsideWorkspace
from vespera_server.problems import Problem, problem_of
from vespera_server.serve.options import ServerOptions
from vespera_server.serve.places import Places
from vespera_server.serve.policy import Policy, Wish


def policy(root: Path, **options: Any) -> Policy:
    return Policy(ServerOptions(roots=[root], **options), {"PATH": "/bin", "OTHER": "x"})


def refused(policy: Policy, **wish: Any) -> Problem:
    with pytest.raises((AgentError, OutsideWorkspace, OSError)) as caught:
        policy.agent(Wish(**({"agent_id": "a"} | wish)))
    return problem_of(caught.value, policy.redactor)


def test_an_agent_gets_the_ceilings_and_nothing_of_the_host(tmp_path: Path) -> None:
    config = policy(tmp_path).agent(Wish(agent_id="a"))
    assert config.program == "claude"
    assert config.working_directory == str(tmp_path)
    assert config.environment == {"PATH": "/bin"}
    assert config.inherit_environment is False
    assert config.allowed_tools == ("Read", "Glob", "Grep")
    assert config.permission_mode == "default"
    assert config.timeouts is not None
    assert config.timeouts.turn == 300
    assert config.extra_args == {
        "setting-sources": "user",
        "strict-mcp-config": None,
        "tools": "Glob,Grep,Read",
    }


@pytest.mark.parametrize(
    "agent_id", ["", ".", "..", "../x", "a/b", "a b", "a\n", "-x", "é", "a" * 65, "\0"]
)
def test_an_id_is_a_plain_name(tmp_path: Path, agent_id: str) -> None:
    assert refused(policy(tmp_path), agent_id=agent_id).code == "invalid_agent_id"


@pytest.mark.parametrize("command", ["sh", "/bin/sh", "claude;sh", "./claude", ""])
def test_only_the_operators_programs_run(tmp_path: Path, command: str) -> None:
    problem = refused(policy(tmp_path), command=command)
    assert problem.code == "program_not_allowed"
    assert "claude" in problem.remedy


def test_a_program_is_run_from_where_the_operator_says(tmp_path: Path) -> None:
    own = policy(tmp_path, programs={"claude": "/opt/claude", "next": "/opt/next"})
    assert own.agent(Wish(agent_id="a", command="next")).program == "/opt/next"


@pytest.mark.parametrize(
    ("ceiling", "wanted", "code"),
    [
        (("Read",), ["Read"], None),
        (("Read", "Bash"), [], None),
        (("Bash",), ["Bash(git log:*)"], None),
        (("Bash(git log:*)",), ["Bash(git log:*)"], None),
        (("*",), ["Write", "mcp__x__y"], None),
        (("Read",), ["Bash"], "tool_not_allowed"),
        (("Bash(git log:*)",), ["Bash"], "tool_not_allowed"),
        (("Bash(git log:*)",), ["Bash(git push:*)"], "tool_not_allowed"),
        (("Read",), ["Read,Bash"], "tool_not_allowed"),
        (("Read",), ["Read(x),Bash(y)"], "tool_not_allowed"),
        (("Read",), ["Read Bash"], "tool_not_allowed"),
        (("Read",), ["*"], "tool_not_allowed"),
        (("*",), ["Read --dangerously-skip-permissions"], "tool_not_allowed"),
    ],
)
def test_tools_are_at_most_the_ceiling(
    tmp_path: Path, ceiling: tuple[str, ...], wanted: list[str], code: str | None
) -> None:
    own = policy(tmp_path, tools=ceiling)
    if code is not None:
        assert refused(own, allowed_tools=wanted).code == code
        return
    config = own.agent(Wish(agent_id="a", allowed_tools=wanted))
    assert config.allowed_tools == (tuple(wanted) or None)
    bases = sorted({rule.partition("(")[0] for rule in wanted})
    assert config.extra_args["tools"] == ",".join(bases)


@pytest.mark.parametrize(
    ("ceiling", "wanted", "given"),
    [
        ("default", None, "default"),
        ("plan", None, "plan"),
        ("acceptEdits", None, "default"),
        ("acceptEdits", "acceptEdits", "acceptEdits"),
        ("default", "plan", "plan"),
        ("default", "acceptEdits", None),
        ("acceptEdits", "bypassPermissions", None),
        ("bypassPermissions", "bypassPermissions", "bypassPermissions"),
        ("default", "nonsense", None),
    ],
)
def test_the_permission_mode_is_at_most_the_ceiling(
    tmp_path: Path, ceiling: str, wanted: str | None, given: str | None
) -> None:
    own = policy(tmp_path, permission_mode=ceiling)
    if given is None:
        assert refused(own, permission_mode=wanted).code == "permission_not_allowed"
        return
    assert own.agent(Wish(agent_id="a", permission_mode=wanted)).permission_mode == given


def test_models_turns_and_their_limits(tmp_path: Path) -> None:
    own = policy(tmp_path, models=["haiku", "sonnet"], turn_timeout="10m")
    assert own.agent(Wish(agent_id="a")).model == "haiku"
    assert own.agent(Wish(agent_id="a", model="sonnet")).model == "sonnet"
    assert refused(own, model="opus").code == "model_not_allowed"
    assert refused(policy(tmp_path), model="--settings=x").code == "model_not_allowed"
    for seconds in (601.0, 0.0, -1.0, float("nan"), float("inf")):
        assert refused(own, timeout_seconds=seconds).code == "timeout_not_allowed"


def test_directories_are_beneath_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (root / "file").touch()
    (root / "link").symlink_to(outside)
    (tmp_path / "root-twin").mkdir()
    own = policy(root)
    assert own.agent(Wish(agent_id="a")).working_directory == str(root)
    for inside in ("sub", str(root / "sub"), "./sub"):
        config = own.agent(Wish(agent_id="a", working_directory=inside))
        assert config.working_directory == str(root / "sub")
    for path in (
        "..",
        "../outside",
        str(outside),
        "link",
        "/",
        f"{root}-twin",
        f"{root}/../outside",
    ):
        assert refused(own, working_directory=path).code == "outside_workspace", path
    assert refused(own, working_directory="file").code == "not_a_directory"
    assert refused(own, working_directory="nowhere").code == "not_found"


def test_several_roots_and_their_spellings(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "first" / "second"
    second.mkdir(parents=True)
    (tmp_path / "alias").symlink_to(first)
    places = Places([str(tmp_path / "alias"), str(second)])
    assert places.roots == (str(first), str(second))
    assert places.find("x").shown == str(first / "x")
    assert places.find(str(tmp_path / "alias" / "x")).shown == str(first / "x")
    assert places.find(str(second / "x")).workspace.root == str(second)
    with pytest.raises(ConfigError, match="no directory"):
        Places([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": ["Read,Bash"]}, "tools"),
        ({"environment": ["azure"]}, "environment"),
        ({"permission_mode": "yolo"}, "permission_mode"),
        ({"idle": "5 minutes"}, "idle"),
        ({"largest_file": "8 megs"}, "largest_file"),
        ({"programs": {}}, "programs"),
        ({"http": {"port": 70000}}, "http.port"),
        ({"roots": "here"}, "roots"),
        ({"tolls": ["Read"]}, "tolls"),
    ],
)
def test_options_that_cannot_work_are_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerOptions.from_mapping(fields)
    assert caught.value.field == field
    assert caught.value.remedy


def test_options_take_units_and_come_back_as_data() -> None:
    options = ServerOptions.from_mapping(
        {"idle": "5m", "largest_file": "2MiB", "http": {"port": 0}, "budget_usd": 2}
    )
    assert (options.idle, options.largest_file, options.budget_usd) == (300.0, 2 << 20, 2.0)
    assert ServerOptions.from_mapping(options.to_mapping()) == options


def test_no_failure_shows_more_than_it_should(tmp_path: Path) -> None:
    own = Policy(
        ServerOptions(roots=[tmp_path], environment_names=["MY_TOKEN"]),
        {"MY_TOKEN": "the-secret-token"},
    )
    unforeseen = problem_of(RuntimeError("the-secret-token in a path"), own.redactor)
    assert unforeseen.code == "internal"
    assert "path" not in unforeseen.message
    told = problem_of(FileNotFoundError(2, "No such file", "the-secret-token"), own.redactor)
    assert "the-secret-token" not in told.message
