"""The real CLI's turns on both backends: tools, several turns, errors of the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Text,
    ToolUse,
)

pytestmark = pytest.mark.claude


def repeat_result(request: ModelRequest) -> Reply:
    return Reply(Text(f"printed {request.last_tool_result}"))


def bash(command: str) -> Reply:
    return Reply(ToolUse("Bash", {"command": command, "description": "test"}))


def test_a_bash_tool_use_really_runs(agents: Any, model: ScriptedModel) -> None:
    model.add("bash", Script(bash("echo $((6*7)) | tee answer.txt"), repeat_result))
    agent = agents.spawn()
    turn = spawner.execute_claude_json(agent, {"prompt": "[[script:bash]] six by seven"})
    assert (turn["outcome"], turn["result"], turn["is_error"]) == ("completed", "printed 42", False)
    assert (agents.directory(agent) / "answer.txt").read_text() == "42\n"
    assert turn["backend"] == agents.backend
    assert turn["num_turns"] == 2
    assert turn["usage"]["output_tokens"] > 0
    assert turn["total_cost_usd"] is not None
    assert turn["total_cost_usd"] > 0
    assert {r.request.session_id for r in model.requests if r.request} == {turn["session_id"]}
    ended = spawner.shutdown_claude_agent(agent)
    assert (ended.code, ended.signal) == (0, None)


def test_a_session_remembers_its_first_turn(agents: Any, model: ScriptedModel) -> None:
    def count_prompts(request: ModelRequest) -> Reply:
        prompts = sum(message.get("role") == "user" for message in request.messages)
        return Reply(Text(f"{prompts} {request.last_tool_result}"))

    model.add("two", Script(bash("echo kept"), Reply(Text("first")), count_prompts))
    agent = agents.spawn()
    first = spawner.execute_claude_json(agent, {"prompt": "[[script:two]] one"})
    second = spawner.execute_claude_json(agent, {"prompt": "two"})
    assert first["result"] == "first"
    assert second["result"] is not None
    assert second["result"].endswith(" kept")
    assert second["session_id"] == first["session_id"]
    assert spawner.agent_status(agent).turns == 2


def test_eight_agents_at_once_each_do_their_own_work(agents: Any, model: ScriptedModel) -> None:
    for number in range(8):
        model.add(f"n{number}", Script(bash(f"echo {number} > mine; cat mine"), repeat_result))

    def work(number: int) -> tuple[str, str | None, str]:
        agent = agents.spawn()
        turn = spawner.execute_claude_json(agent, {"prompt": f"[[script:n{number}]] go"})
        return turn["outcome"], turn["result"], (agents.directory(agent) / "mine").read_text()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [("completed", f"printed {n}", f"{n}\n") for n in range(8)]
    assert len({r.request.session_id for r in model.requests if r.request}) == 8


def test_a_refused_request_is_a_failed_turn_with_the_reason(
    agents: Any, model: ScriptedModel
) -> None:
    model.add("refuse", Script(then=Failure(400, "scripted refusal")))
    turn = spawner.execute_claude_json(agents.spawn(), {"prompt": "[[script:refuse]] go"})
    assert (turn["outcome"], turn["is_error"]) == ("failed", True)
    assert "scripted refusal" in f"{turn['result']} {turn.get('error')}"


@pytest.mark.parametrize(
    "step",
    [
        Failure(529),
        Failure(429, retry_after=0.1),
        Failure(500),
        Reply(Text("x" * 400), break_after=6, break_by="cut"),
        Reply(Text("x" * 400), break_after=6, break_by="error"),
    ],
    ids=["529", "429", "500", "cut stream", "stream error"],
)
def test_a_passing_trouble_of_the_model_is_survived(
    agents: Any, model: ScriptedModel, step: Any
) -> None:
    model.add("trouble", Script(step, Reply(Text("after the trouble"))))
    turn = spawner.execute_claude_json(agents.spawn(), {"prompt": "[[script:trouble]] go"})
    assert (turn["outcome"], turn["result"]) == ("completed", "after the trouble")
    assert len(model.requests) >= 2


def test_a_dead_proxy_in_the_agents_environment_does_not_matter(
    agents: Any, model: ScriptedModel
) -> None:
    model.add("proxy", Script(Reply(Text("reached"))))
    dead = "http://127.0.0.1:9"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    agent = agents.spawn(environment=dict.fromkeys(names, dead))
    turn = spawner.execute_claude_json(agent, {"prompt": "[[script:proxy]] go"})
    assert turn["result"] == "reached"
