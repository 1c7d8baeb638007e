"""What a caller wrote by mistake: the error names the field, the value and the remedy."""

from __future__ import annotations

import asyncio
import pwd
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet
from vespera_agent_spawner import AgentConfig, ConfigError, SpawnError, Supervisor
from vespera_agent_spawner.adapters import locate


def refused(fleet: Fleet, configs: Any) -> ConfigError:
    async def main() -> ConfigError:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError) as caught:
                await sup.run(configs)
            with pytest.raises(ConfigError, match="config"):
                async for _ in sup.as_completed(configs):
                    pass
            return caught.value

    error = asyncio.run(main())
    assert fleet.gone()
    return error


def test_of_a_list_the_one_that_is_wrong_is_named(fleet: Fleet) -> None:
    good = fleet.config("hi")
    error = refused(fleet, [good, {"prompt": "hi", "max_turns": -1}])
    assert str(error).startswith("configs[1]: max_turns: got -1; ")
    assert (error.field, error.value, error.context["index"]) == ("max_turns", -1, 1)
    assert str(refused(fleet, [good, good, AgentConfig()])).startswith("configs[2]: prompt: ")
    assert 'configs[0]: config: got "hello"; give an AgentConfig' in str(refused(fleet, ["hello"]))


@pytest.mark.parametrize("given", ["hello", AgentConfig(prompt="hi"), {"prompt": "hi"}, 3, None])
def test_what_is_no_list_is_refused(fleet: Fleet, given: object) -> None:
    assert "give a list of AgentConfig" in str(refused(fleet, given))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"timeouts": 30}, "timeouts: got 30; give an object with named fields: startup, turn"),
        ({"budget": 1.0}, "budget: got 1.0; give an object with named fields: usd, tokens"),
        ({"hooks": {"PreToolUse": 3}}, "hooks.PreToolUse: got 3; give Python functions"),
        ({"retry": {"on": "timed_out"}}, 'such as ["one", "another"]'),
    ],
)
def test_a_field_of_the_wrong_kind_says_what_it_takes(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig(prompt="hi", **fields)
    assert words in str(caught.value)


def test_no_message_holds_what_cannot_be_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig(prompt="half \ud800 a pair")
    assert str(caught.value).encode()
    assert "\\ud800" in str(caught.value)


def test_a_backend_that_is_none_lists_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'ruby' is no backend; use one of auto, rust, python"):
        spawner.spawn_claude_agent("a", "true", backend="ruby")
    monkeypatch.setenv("VESPERA_BACKEND", "ruby")
    with pytest.raises(ConfigError, match="VESPERA_BACKEND: 'ruby' is no backend; use one of"):
        Supervisor()


def test_the_module_functions_name_their_own_arguments(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match="command: got ") as caught:
        spawner.spawn_claude_agent("a", "", backend=fleet.backend)
    assert caught.value.field == "command"


def test_a_directory_is_no_program(fleet: Fleet, tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(SpawnError, match="is a directory"):
                await sup.spawn(AgentConfig(program=str(tmp_path)))

    asyncio.run(main())


def test_a_script_without_its_interpreter_says_so(fleet: Fleet, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nowhere/interpreter\n")
    script.chmod(0o755)

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(SpawnError, match="interpreter in its first line") as caught:
                await sup.spawn(AgentConfig(program=str(script)))
            assert caught.value.stage == "exec"

    asyncio.run(main())


def test_an_agent_that_is_not_there_says_how_to_find_who_is(fleet: Fleet) -> None:
    with pytest.raises(spawner.AgentNotFound, match=r"list_agents\(\) shows those that live"):
        spawner.agent_status("nobody-of-that-name")

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(spawner.AgentNotFound, match=r"list_agents\(\) shows who") as caught:
                sup.agent("nobody")
            assert caught.value.agent_id == "nobody"

    asyncio.run(main())


def test_a_directory_to_be_added_is_there(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()

    async def main() -> None:
        async with fleet.supervisor() as sup:
            for added, words in (("nowhere", "does not exist"), ("file", "is not a directory")):
                added_too = ["there", added]
                config = fleet.config("echo a", working_directory=tmp_path, add_dirs=added_too)
                expected = rf"^add_dirs\[1\]: {tmp_path}/{added} {words}; create it"
                with pytest.raises(ConfigError, match=expected) as caught:
                    await sup.spawn(config)
                assert (caught.value.field, caught.value.value) == ("add_dirs[1]", added)
                [result] = await sup.run([config._with(retry={"attempts": 3, "backoff": 60})])
                assert (result.outcome, result.attempts) == ("spawn_failed", 1)
            every = ["there", str(tmp_path), "~/wherever"]
            config = fleet.config("echo a", working_directory=tmp_path, add_dirs=every)
            [result] = await sup.run([config])
            assert result.outcome == "completed", result.error

    asyncio.run(main())


def test_a_user_without_a_home_is_told_where_the_program_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    # As of a number that no user has: containers are run as such.
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    monkeypatch.setattr(locate, "_is_program", lambda _: False)
    with pytest.raises(SpawnError, match=r"'claude' not found; looked in: PATH .*/usr/local/bin"):
        locate.find_program(None, {"PATH": "/nowhere"})
