"""Settings in layers: which wins, where it comes from, what is refused, what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vespera_agent_spawner import config_schema
from vespera_agent_spawner.errors import ConfigError
from vespera_server.serve.options import HttpOptions, ServerOptions
from vespera_server.settings import load_settings
from vespera_server.settings.command import config_show
from vespera_server.settings.schema import SCHEMAS, schema_named
from vespera_server.state import StateDirectory


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project below a directory of the user's settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "vespera").mkdir(parents=True)
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return inner


def test_later_layers_win_field_by_field_and_each_value_has_an_origin(project: Path) -> None:
    user = project.parents[1] / "config" / "vespera" / "vespera.toml"
    user.write_text('[agent]\nmodel = "user"\neffort = "low"\n[run]\nbudget_usd = 1.0\n')
    pyproject = project.parent / "pyproject.toml"
    pyproject.write_text('[tool.vespera.agent]\nmodel = "pyproject"\nmax_turns = 3\n')
    own = project.parent / "vespera.toml"
    own.write_text('[agent]\nmodel = "own"\n[state]\nmax_age = "7d"\n')
    environment = {
        "VESPERA_SUPERVISOR__MAX_AGENTS": "4",
        "VESPERA_SUPERVISOR__TIMEOUTS__TURN": "5m",
        "VESPERA_AGENT__ALLOWED_TOOLS": '["Read"]',
        "VESPERA_STATE__MAX_SIZE": "3GiB",
        "VESPERA_BACKEND": "python",
    }
    layered = load_settings(environment=environment)
    values = layered.values
    assert values.agent == {
        "model": "own",
        "effort": "low",
        "max_turns": 3,
        "allowed_tools": ["Read"],
    }
    assert values.supervisor == {"max_agents": 4, "timeouts": {"turn": "5m"}}
    assert (values.state.max_age, values.state.max_size) == (7 * 86400.0, 3 << 30)
    assert {
        field: layered.origin(field)
        for field in ("agent.model", "agent.effort", "agent.max_turns", "state.max_size")
    } == {
        "agent.model": str(own),
        "agent.effort": str(user),
        "agent.max_turns": str(pyproject),
        "state.max_size": "environment",
    }
    assert layered.origin("run.agents") == "built in"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("vespera.toml", "[agent]\ncolour = 1\n", "vespera.toml:2: agent.colour: "),
        ("vespera.toml", "[supervisor]\n\nmax_agents = 0\n", "vespera.toml:3: supervisor.max"),
        ("vespera.toml", "[state]\nmax_size = 'big'\n", "vespera.toml:2: state.max_size: 'big': "),
        ("vespera.toml", "[stat]\n", "vespera.toml:1: stat: there is no such field"),
        ("vespera.toml", "[roles.r]\nresume = 'x'\n", "vespera.toml:2: roles.r.resume: 'x': leave"),
        ("vespera.toml", "[run]\nenvironment = ['x']\n", "vespera.toml:2: run.environment: 'x': "),
        ("vespera.toml", "[agent\n", "vespera.toml:1: "),
        (
            "pyproject.toml",
            "[tool.vespera.run]\nagents = 'x'\n",
            "pyproject.toml:2: tool.vespera.run.agents: 'x': ",
        ),
    ],
)
def test_a_wrong_setting_names_file_line_and_field(
    name: str, text: str, message: str, project: Path
) -> None:
    (project / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(environment={})
    assert str(caught.value).removeprefix(f"{project}/").startswith(message)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VESPERA_SUPERVISOR__MAX_AGENTS", "none", "VESPERA_SUPERVISOR__MAX_AGENTS: 'none': "),
        ("VESPERA_FLEET__SIZE", "3", "VESPERA_FLEET__SIZE: there is no section 'fleet'"),
        ("VESPERA_STATE__MAX", "3", "VESPERA_STATE__MAX: there is no such field"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, message: str, project: Path) -> None:
    with pytest.raises(ConfigError, match=f"environment: {message}"):
        load_settings(environment={name: value})


def test_config_show_tells_origins_and_no_secrets(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "vespera.toml").write_text(
        '[roles.r]\nmodel = "m"\nenvironment = { KEY = "hunter2" }\n'
    )
    assert config_show(as_json=False) == 0
    shown = capsys.readouterr().out
    assert f'roles.r.model           = "m"  # {project / "vespera.toml"}' in shown
    assert "hunter2" not in shown
    assert "KEY" in shown
    assert f"null  # built in: {StateDirectory().root}" in shown
    assert config_show(as_json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["state.max_size"] == {"value": 2 << 30, "origin": "built in"}
    (project / "vespera.toml").write_text("[nothing]\n")
    assert config_show(as_json=False) == 2


def test_schemas_are_built_on_the_engines() -> None:
    engine = config_schema()
    assert schema_named("engine") == engine
    for which in ("config", "tasks"):
        schema = schema_named(which)
        assert schema["$defs"]["Timeouts"] == engine["$defs"]["Timeouts"]
        assert "session_id" not in schema["$defs"]["AgentConfig"]["properties"]
    config = schema_named("config")
    assert config["properties"]["serve"]["$ref"] == "#/$defs/ServerOptions"
    assert config["$defs"]["ServerOptions"]["properties"]["max_agents"] == {"default": 8}
    assert "ServerOptions" not in schema_named("tasks")["$defs"]
    task = schema_named("tasks")["$defs"]["TaskEntry"]["properties"]
    assert {"id", "needs", "model", "timeouts"} <= set(task)
    assert set(SCHEMAS) == {"config", "tasks", "engine"}


def test_what_limits_callers_is_the_operators(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = project.parents[1] / "config" / "vespera" / "vespera.toml"
    user.write_text("[serve]\nmax_agents = 2\n[serve.http]\nport = 9000\n")
    environment = {"VESPERA_SERVE__TOOLS": '["Read", "Edit"]', "VESPERA_SERVE__IDLE": "5m"}
    layered = load_settings(environment=environment)
    options = ServerOptions.from_mapping(layered.values.serve)
    assert (options.max_agents, options.tools, options.idle) == (2, ("Read", "Edit"), 300.0)
    assert options.http == HttpOptions(port=9000)
    assert layered.origin("serve.http.port") == str(user)
    assert config_show(as_json=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["serve.max_agents"] == {"value": 2, "origin": str(user)}
    assert shown["serve.http.host"] == {"value": "127.0.0.1", "origin": "built in"}
    assert shown["serve.permission_mode"] == {"value": "default", "origin": "built in"}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("vespera.toml", "[serve]\npermission_mode = 'bypassPermissions'\n", 1),
        ("pyproject.toml", "[project]\n[tool.vespera.serve]\nmax_agents = 99\n", 2),
    ],
)
def test_a_project_does_not_limit_those_who_write_in_it(
    name: str, text: str, line: int, project: Path
) -> None:
    (project / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}:{line}: .*serve: a project does not decide"):
        load_settings(environment={})
    assert load_settings(environment={}, project=False).values.serve == {}
