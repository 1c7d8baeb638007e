"""Turns: what goes in, what comes out, and that no odd byte ends the conversation."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents, eventually


def test_a_turn_has_its_result(agents: Agents) -> None:
    name = agents.spawn()
    turn = agents.say(name, "echo good morning")
    assert turn["outcome"] == "completed"
    assert turn["result"] == "echo good morning"
    assert not turn["is_error"]
    assert turn["num_turns"] == 1
    assert turn["usage"]["output_tokens"] == 5
    assert turn["backend"] == agents.backend
    assert turn["session_id"] == spawner.agent_status(name).session_id
    json.dumps(turn)


def test_what_a_turn_answers_keeps_every_digit(agents: Agents) -> None:
    name, many = agents.spawn(), {"of": [12345678901234567890123, -9223372036854775809, 0.5]}
    frame = {"type": "result", "subtype": "success", "result": "", "structured_output": many}
    turn = agents.say(name, f"say {json.dumps([json.dumps(frame)])}")
    assert turn["structured_output"] == many


def test_the_session_id_is_ours(agents: Agents) -> None:
    name = agents.spawn()
    argv = json.loads(agents.say(name, "argv")["result"] or "")
    session_id = spawner.agent_status(name).session_id
    assert f"--session-id={session_id}" in argv
    assert uuid.UUID(session_id).version == 4


def test_turns_follow_each_other_and_cost_is_a_difference(agents: Agents) -> None:
    name = agents.spawn()
    first, second = agents.say(name, "echo 1"), agents.say(name, "echo 2")
    assert (first["total_cost_usd"], second["total_cost_usd"]) == (0.25, 0.5)
    assert second.get("cost_usd") == 0.25
    info = spawner.agent_status(name)
    assert (info.turns, info.cost_usd, info.outcome) == (2, 0.5, "completed")


def test_a_request_may_be_json_text(agents: Agents) -> None:
    name = agents.spawn()
    for request in ('{"prompt": "echo a"}', b'{"prompt": "echo a"}'):
        assert spawner.execute_claude_json(name, request)["result"] == "echo a"


def test_unknown_fields_of_a_request_are_metadata(agents: Agents) -> None:
    turn = agents.say(agents.spawn(), "echo a", ticket=42)
    assert turn.get("metadata") == {"ticket": 42}


def test_an_error_of_the_model_is_a_result(agents: Agents) -> None:
    turn = agents.say(agents.spawn(), "fail")
    assert turn["is_error"]
    assert turn["outcome"] == "auth_failed"
    assert str(turn.get("error")).startswith("the model said no")


def test_line_separators_inside_json_do_not_cut_it(agents: Agents) -> None:
    assert agents.say(agents.spawn(), "separators")["result"] == "a\u2028b\u0085c\u2029d"


def test_line_separators_in_a_prompt_arrive(agents: Agents) -> None:
    prompt = "echo a\u2028b\u0085c\nd\r\x00e \U0001f980"
    assert agents.say(agents.spawn(), prompt)["result"] == prompt


def test_characters_split_between_reads_are_whole(agents: Agents) -> None:
    assert agents.say(agents.spawn(), "split")["result"] == "häßlich 🦀 日本"


def test_unknown_frames_and_noise_pass(agents: Agents) -> None:
    name = agents.spawn("noise")
    assert agents.say(name, "unknown")["result"] == "still here"
    assert agents.say(name, "echo a")["result"] == "echo a"


def test_a_line_of_twenty_megabytes(agents: Agents) -> None:
    size = 20 * 1024 * 1024
    assert len(agents.say(agents.spawn(), f"big {size}")["result"] or "") == size


def test_a_line_over_the_cap_is_skipped_and_the_stream_lives(agents: Agents) -> None:
    name = agents.spawn()
    assert agents.say(name, "oversize")["result"] == "after the oversize line"
    assert agents.say(name, "echo a")["result"] == "echo a"


def test_a_prompt_longer_than_any_pipe(agents: Agents) -> None:
    prompt = "length " + "p" * (8 * 1024 * 1024)
    assert agents.say(agents.spawn(), prompt)["result"] == str(len(prompt))


def test_a_flood_of_stderr_blocks_nobody(agents: Agents) -> None:
    assert agents.say(agents.spawn(), "flood")["result"] == "after the flood"


def test_a_permission_ask_is_denied_at_once(agents: Agents) -> None:
    known, unknown = json.loads(agents.say(agents.spawn(), "permission")["result"] or "")
    assert known["response"]["behavior"] == "deny"
    assert known["response"]["message"] == "no permission handler; list the tool in allowed_tools"
    assert unknown["subtype"] == "error"


def test_a_result_of_a_background_task_does_not_end_a_turn(agents: Agents) -> None:
    assert agents.say(agents.spawn(), "foreign")["result"] == "of the turn"


def test_a_turn_on_a_busy_agent_is_refused(agents: Agents) -> None:
    name = agents.spawn()
    failures: list[BaseException] = []

    def hang() -> None:
        try:
            agents.say(name, "hang")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    assert eventually(lambda: spawner.agent_status(name).state == "in_turn")
    with pytest.raises(spawner.AgentBusy, match=name):
        agents.say(name, "echo a")
    spawner.shutdown_claude_agent(name, 2)
    thread.join(10)
    assert not thread.is_alive()


def test_threads_that_try_again_until_an_agent_is_free_have_their_own_results(
    agents: Agents,
) -> None:
    name = agents.spawn()
    answers: dict[str, str | None] = {}

    def work(number: int) -> None:
        for turn in range(20):
            while True:
                try:
                    said = agents.say(name, f"echo {number}.{turn}")["result"]
                except spawner.AgentBusy:
                    continue
                except spawner.AgentError as error:
                    said = repr(error)
                answers[f"{number}.{turn}"] = said
                break

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {f"{n}.{t}": f"echo {n}.{t}" for n in range(4) for t in range(20)}


def test_a_turn_that_takes_too_long_is_interrupted_and_the_session_lives(agents: Agents) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.AgentTimeout, match="turn") as caught:
        agents.say(name, "hang", timeout=0.2)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.which == "turn"
    assert spawner.agent_status(name).state == "ready"
    assert agents.say(name, "echo a")["result"] == "echo a"


def test_the_agents_own_turn_limit_counts(agents: Agents) -> None:
    name = agents.spawn(timeout_seconds=0.2)
    with pytest.raises(spawner.AgentTimeout):
        agents.say(name, "hang")


def test_an_agent_that_dies_in_a_turn_says_why(agents: Agents) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.AgentFailed, match="the disk is on fire") as caught:
        agents.say(name, "die")
    assert "the disk is on fire" in caught.value.stderr_tail
    assert spawner.agent_status(name).state == "ended"
    assert spawner.shutdown_claude_agent(name).code == 3
    with pytest.raises(spawner.AgentFailed, match="the disk is on fire"):
        agents.say(name, "echo a")


def test_an_agent_that_crashes_names_the_signal(agents: Agents) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.AgentFailed, match="SIGSEGV"):
        agents.say(name, "crash")
    status = spawner.shutdown_claude_agent(name)
    assert (status.code, status.signal) == (None, 11)


def test_an_exit_in_the_middle_of_a_line_is_a_failure(agents: Agents) -> None:
    with pytest.raises(spawner.AgentFailed):
        agents.say(agents.spawn(), "midline")


def test_a_last_line_without_newline_counts(agents: Agents) -> None:
    assert agents.say(agents.spawn(), "lastline")["result"] == "last words"


def test_an_agent_that_closes_its_output_is_ended(agents: Agents) -> None:
    with pytest.raises(spawner.AgentFailed):
        agents.say(agents.spawn(), "mute")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "request.prompt"),
        ({"prompt": ""}, "request.prompt"),
        ({"prompt": "a", "timeout": -1}, "request.timeout"),
        ({"prompt": "a", "timeout": "soon"}, "request.timeout"),
        ({"prompt": "a", "timeout": float("inf")}, "request.timeout"),
        ({"prompt": "a\ud800"}, "request.prompt"),
        ({"prompt": "a", "command": "other"}, "request.command"),
        ({"prompt": "a", "environment": {"X": "1"}}, "request.environment.X"),
        ("{", "request"),
        ("[]", "request"),
    ],
)
def test_a_wrong_request_names_field_and_remedy(
    agents: Agents, request_: dict[str, object] | str, field: str
) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.ConfigError) as caught:
        spawner.execute_claude_json(name, request_)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("seconds", [-1, 0, float("nan"), "soon"])
def test_a_wrong_limit_of_turns_is_named_as_it_is_given(agents: Agents, seconds: Any) -> None:
    with pytest.raises(spawner.ConfigError) as caught:
        agents.spawn(timeout_seconds=seconds)
    assert caught.value.field == "timeout_seconds"


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan"), "x", None])
def test_a_wrong_grace_is_named_and_ends_nobody(agents: Agents, grace: Any) -> None:
    name = agents.spawn()
    with pytest.raises(spawner.ConfigError) as caught:
        spawner.shutdown_claude_agent(name, grace)
    assert caught.value.field == "grace_seconds"
    assert agents.say(name, "echo on", timeout="5m")["result"] == "echo on"
    assert spawner.shutdown_claude_agent(name, "5s").code == 0


def test_eight_agents_at_once(agents: Agents) -> None:
    answers: dict[str, str | None] = {}

    def work(number: int) -> None:
        name = agents.spawn()
        for turn in range(5):
            answers[f"{number}.{turn}"] = agents.say(name, f"echo {number}.{turn}")["result"]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {f"{n}.{t}": f"echo {n}.{t}" for n in range(8) for t in range(5)}
