"""Hooks and tools in Python: whatever is asked gets one answer, and nothing waits for a handler."""

from __future__ import annotations

import asyncio
import collections
import copy
import functools
import gc
import importlib
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import pytest

from fleets import Fleet
from vespera_agent_spawner import (
    AgentConfig,
    ConfigError,
    Hook,
    Outcome,
    State,
    Tool,
    spawn_claude_agent,
)
from vespera_agent_spawner.handlers import check_handlers, offering

Field = pytest.importorskip("pydantic").Field


def silent(event: dict[str, Any]) -> None:
    """A hook."""


def add(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


def mcp(method: str, number: int | None = 7, **params: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if number is not None:
        message["id"] = number
    return {"subtype": "mcp_message", "server_name": "host", "message": message}


def use(name: str, number: int = 7, /, **arguments: Any) -> dict[str, Any]:
    return mcp("tools/call", number, name=name, arguments=arguments)


def hook(name: str, **event: Any) -> dict[str, Any]:
    return {"subtype": "hook_callback", "callback_id": name, "input": event}


def ask(fleet: Fleet, requests: list[Any], **fields: Any) -> dict[int, dict[str, Any]]:
    """What the host answers to these requests of one turn, by their numbers."""

    async def main() -> dict[int, dict[str, Any]]:
        async with fleet.supervisor() as sup:
            prompt = f"calls {json.dumps(requests)}"
            [result] = await sup.run([fleet.config(prompt, **fields)])
        assert result.outcome is Outcome.COMPLETED, result.error
        return {int(key): value for key, value in json.loads(result.result or "").items()}

    return asyncio.run(main())


def said(answer: dict[str, Any]) -> Any:
    """The server's answer inside of the CLI's protocol."""
    assert answer["subtype"] == "success", answer
    return answer["response"]["mcp_response"]


def test_the_server_speaks_mcp(fleet: Fleet) -> None:
    requests = [
        mcp("initialize", 0, protocolVersion="2025-11-25"),
        mcp("notifications/initialized", None),
        mcp("tools/list", 1),
        use("add", 2, a="40", b=2),
        mcp("ping", 3),
        mcp("resources/list", 4),
    ]
    answers = ask(fleet, requests, tools=[add])
    assert said(answers[0])["result"]["protocolVersion"] == "2025-11-25"
    assert said(answers[1]) == {"jsonrpc": "2.0", "result": {}}
    [listed] = said(answers[2])["result"]["tools"]
    assert (listed["name"], listed["description"]) == ("add", "Adds.")
    assert listed["inputSchema"]["properties"] == {
        "a": {"type": "integer"},
        "b": {"type": "integer", "default": 1},
    }
    shown = {"content": [{"type": "text", "text": "42"}], "isError": False}
    assert said(answers[3]) == {"jsonrpc": "2.0", "id": 2, "result": shown}
    assert said(answers[4])["result"] == {}
    assert said(answers[5])["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (use("nobody", a=1), "the host has no tool 'nobody'; it has: add"),
        (mcp("tools/call", 1), "no tool 'None'"),
        (use("add", a="forty"), "a: Input should be a valid integer"),
        (use("add"), "a: Field required"),
        (use("add", a=1, c=2), "c: Extra inputs are not permitted"),
        ({**use("add"), "message": "garbage"}, "a message is an object"),
        ({"subtype": "mcp_message"}, "a message is an object"),
        ({**use("add"), "message": {"id": [1], "method": {"x": 1}}}, "knows no"),
        (hook("nobody-0"), "the host has no hook 'nobody-0'"),
        (hook("PreToolUse-7"), "the host has no hook"),
        ({"subtype": "hook_callback"}, "the host has no hook 'None'"),
        ({"subtype": "new_kind"}, "no handler for"),
    ],
)
def test_nonsense_of_the_cli_gets_an_answer(
    fleet: Fleet, request_: dict[str, Any], words: str
) -> None:
    answers = ask(fleet, [request_, use("add", a=1)], tools=[add])
    assert words in json.dumps(answers[0], ensure_ascii=False)
    assert said(answers[1])["result"]["content"][0]["text"] == "2"


def test_without_functions_a_call_is_refused_at_once(fleet: Fleet) -> None:
    answers = ask(fleet, [use("add", a=1), hook("PreToolUse-0")])
    assert {answer["subtype"] for answer in answers.values()} == {"error"}


def test_calls_that_hang_hold_up_no_other(fleet: Fleet) -> None:
    """More of them than a pool of threads would have."""
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    requests = [use("hang", number) for number in range(60)] + [use("add", 99, a=1)]
    began = time.monotonic()
    try:
        answers = ask(fleet, requests, tools=[Tool(hang, timeout=0.5), add])
    finally:
        release.set()
    assert said(answers[60])["result"]["content"][0]["text"] == "2"
    for number in range(60):
        assert "did not answer within 0.5 s" in json.dumps(answers[number])
    assert time.monotonic() - began < 30


def test_the_stream_goes_on_while_a_handler_hangs(fleet: Fleet) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def wait() -> str:
            await release.wait()
            return "waited"

        async with fleet.supervisor() as sup:
            busy = await sup.spawn(fleet.config(tools=[wait]))
            other = await sup.spawn(fleet.config())
            turn = asyncio.ensure_future(busy.run(f"calls {json.dumps([use('wait')])}"))
            async for event in busy:
                if event.kind == "control_request":
                    break
            assert busy.state is State.IN_TURN
            assert (await other.run("echo hello")).outcome is Outcome.COMPLETED
            assert not turn.done()
            release.set()
            assert "waited" in ((await turn).result or "")

    asyncio.run(main())


def test_what_is_taken_back_is_cancelled_and_not_answered(fleet: Fleet) -> None:
    async def main() -> None:
        ended: list[str] = []

        async def wait(name: str) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(name)

        async def person(tool: str, given: Any) -> bool:
            await wait("permission")
            return True

        asked = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
        requests = [use("wait", 1, name="tool"), hook("PreToolUse-0"), asked, 0, 1, 2]
        async with fleet.supervisor() as sup:
            config = fleet.config(
                f"calls {json.dumps(requests)}",
                tools=[wait],
                hooks={"PreToolUse": lambda event: wait("hook")},
                on_permission=person,
            )
            [result] = await sup.run([config])
            assert result.result == "{}"
        # Some may have been taken back before they began; none is left.
        assert set(ended) <= {"tool", "hook", "permission"}
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(left, timeout=5)
            assert not late

    asyncio.run(main())


def test_a_servers_own_cancellation_ends_the_call(fleet: Fleet) -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    requests = [use("wait", 5), mcp("notifications/cancelled", None, requestId=5)]
    answers = ask(fleet, requests, tools=[wait])
    assert "was cancelled" in json.dumps(answers[0])


def test_a_turn_time_out_does_not_wait_for_a_handler(fleet: Fleet) -> None:
    async def main() -> None:
        async def wait(event: dict[str, Any]) -> None:
            await asyncio.sleep(60)

        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(hooks={"PreToolUse": wait}))
            prompt = f"calls {json.dumps([hook('PreToolUse-0')])}"
            result = await chat.run(prompt, timeout=0.3)
            assert result.outcome is Outcome.TIMED_OUT
            await chat.shutdown(0)

    asyncio.run(main())


def test_the_end_of_an_agent_cancels_its_handlers(fleet: Fleet) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with fleet.supervisor() as sup:
            config = fleet.config(f"calls {json.dumps([use('wait')])}", tools=[wait])
            agent = await sup.spawn(config)
            await begun.wait()
            agent.kill()
            await agent.result()
            await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dropped_agent_cancels_its_handlers(fleet: Fleet) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with fleet.supervisor() as sup:
            config = fleet.config(f"calls {json.dumps([use('wait')])}", tools=[wait])
            agent = await sup.spawn(config)
            await begun.wait()
            del agent
            gc.collect()
            await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(main())
    assert fleet.gone()


def test_answers_do_not_mix_between_agents(fleet: Fleet) -> None:
    def tool_of(number: int) -> Callable[[], str]:
        def who() -> str:
            time.sleep(0.05)
            return f"agent {number}"

        return who

    async def main() -> None:
        async with fleet.supervisor() as sup:
            prompt = f"calls {json.dumps([use('who')])}"
            results = await sup.run(
                [fleet.config(prompt, tools=[tool_of(number)]) for number in range(8)]
            )
        for number, result in enumerate(results):
            assert f"agent {number}" in (result.result or "")

    asyncio.run(main())


# -- configuration -------------------------------------------------------------------------


class Unknown:
    """No type that JSON knows."""


def strange(what: Unknown) -> None: ...


def many(*things: int) -> None: ...


def no_number(what: float = float("nan")) -> None: ...


def no_member(what: collections.Missing) -> None:  # type: ignore[name-defined]
    ...


def no_hint(what: "int |") -> None:  # type: ignore[valid-type]  # noqa: F722
    ...


def no_bound(what: Annotated[int, Field(gt="a")]) -> None: ...


def unresolved(what: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    ...


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tools": [strange]}, "no schema can be made of its type hints"),
        ({"tools": [many]}, "has no schema"),
        ({"tools": [unresolved]}, "its type hints cannot be read"),
        ({"tools": [no_member]}, "its type hints cannot be read"),
        ({"tools": [no_hint]}, "its type hints cannot be read"),
        ({"tools": [no_bound]}, "no schema can be made of its type hints"),
        ({"tools": [no_number]}, "JSON cannot say one of its defaults"),
        ({"tools": [lambda: None]}, "is no name of a tool"),
        ({"tools": [add, add]}, "there are two tools 'add'"),
        ({"tools": [add], "mcp_config": {"mcpServers": {"host": {}}}}, "a server named 'host'"),
        ({"tools": {"add": add}}, "give a list of functions"),
        ({"hooks": [add]}, "functions without an event"),
        ({"hooks": {"PreTooluse": add}}, 'did you mean "PreToolUse"'),
        ({"hooks": {"Stop": add, "user_prompt_submit": add}}, 'did you mean "UserPromptSubmit"'),
        ({"hooks": {"Subagent_Stop": [Hook(silent)]}}, 'did you mean "SubagentStop"'),
    ],
)
def test_what_cannot_be_called_is_refused_before_a_start(
    fleet: Fleet, fields: dict[str, Any], words: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError, match=words):
                await sup.spawn(fleet.config("hello", **fields))

    asyncio.run(main())


def test_a_misspelt_event_is_named_in_the_error() -> None:
    with pytest.raises(ConfigError) as caught:
        check_handlers(AgentConfig(hooks={"PreTooluse": add}))
    error = caught.value
    assert (error.field, error.value) == ("hooks.PreTooluse", "PreTooluse")
    assert error.remedy == 'did you mean "PreToolUse"?'


@pytest.mark.parametrize("event", ["PreToolBatch", "Rewind", ""])
def test_an_event_of_a_newer_cli_is_passed_on_with_a_warning(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = AgentConfig(hooks={event: Hook(silent, timeout=7), "Stop": add})
    with caplog.at_level(logging.WARNING, "vespera"):
        check_handlers(config)
        assert list(offering(config, {})["hooks"]) == [event, "Stop"]
    # The agents of a fleet have the same hooks: once is enough.
    assert caplog.text.count(f"{event!r} is no event that is known here") == 1


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), True, "soon", "0s", None])
@pytest.mark.parametrize(("kind", "field"), [(Hook, "hooks.timeout"), (Tool, "tools.timeout")])
def test_a_handler_without_a_deadline_is_refused(kind: Any, field: str, seconds: Any) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        kind(add, timeout=seconds)
    error = caught.value
    assert error.field == field
    assert error.value is seconds
    assert "give " in str(error.remedy)


def test_a_deadline_is_a_duration_as_any_other() -> None:
    kinds: tuple[Any, ...] = (Hook, Tool)
    for kind in kinds:
        made: Any = [kind(add), kind(add, timeout=5), kind(add, timeout="5m")]
        assert [one.timeout for one in made] == [60.0, 5.0, 300.0]
        assert all(isinstance(one.timeout, float) for one in made)
        assert "timeout=300.0" in repr(made[2])
        assert made[2] == copy.deepcopy(made[2]) != made[1]


def test_a_matcher_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pattern of tool names") as caught:
        Hook(print, ["Write", "Edit"])  # type: ignore[arg-type]
    assert caught.value.field == "hooks.matcher"


@pytest.mark.parametrize("field", ["name", "description"])
def test_what_a_tool_says_of_itself_is_text(field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Tool(add, **{field: 5})  # type: ignore[arg-type]
    error = caught.value
    assert (error.field, error.value) == (f"tools.{field}", 5)
    assert error.remedy == "give text, or None for the function's own"


def test_what_can_be_called_can_be_a_tool(fleet: Fleet) -> None:
    class Adder:
        """Adds to its own."""

        __hash__ = None  # type: ignore[assignment]

        def __init__(self, own: int) -> None:
            self.own = own

        async def __call__(self, to: int) -> int:
            self.own += to
            return self.own

        def method(self, schema: int, /, copy: int = 3) -> list[int]:
            """A name that a model has for itself."""
            return [schema, copy, self.own]

    adder = Adder(40)
    tools = [
        Tool(adder, name="adder"),
        adder.method,
        Tool(functools.partial(add, b=7), name="seven", description="Adds seven."),
    ]
    requests = [use("adder", to=2), mcp("tools/list"), use("method", schema=1), use("seven", a=1)]
    answers = ask(fleet, requests, tools=tools)
    texts = [said(answers[number])["result"]["content"][0]["text"] for number in (0, 2, 3)]
    assert texts[0] == "42"
    assert texts[1] in ("[1,3,40]", "[1,3,42]")
    assert texts[2] == "8"
    listed = {tool["name"]: tool for tool in said(answers[1])["result"]["tools"]}
    assert listed["adder"]["description"] == "Adds to its own."
    assert listed["method"]["inputSchema"]["required"] == ["schema"]
    assert listed["seven"]["description"] == "Adds seven."


def test_tools_without_pydantic_name_the_extra(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)

    def fresh() -> None: ...

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError, match=r"vespera-agent-spawner\[tools\]") as caught:
                await sup.spawn(fleet.config("hello", tools=[fresh]))
            assert caught.value.field == "tools"

    asyncio.run(main())


def test_the_transport_without_the_sdk_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "claude_agent_sdk", None)
    monkeypatch.delitem(sys.modules, "vespera_agent_spawner.claude_sdk", raising=False)
    with pytest.raises(ImportError, match=r"vespera-agent-spawner\[claude-sdk\]"):
        importlib.import_module("vespera_agent_spawner.claude_sdk")


def test_the_module_functions_have_no_loop_to_call_on(backend: str) -> None:
    config = AgentConfig(tools=[add])
    with pytest.raises(ConfigError, match="no event loop"):
        spawn_claude_agent("tools", config=config, backend=backend)


def test_equal_configurations_tell_the_cli_the_same() -> None:
    """A process that was prepared for one serves the other."""

    def told() -> dict[str, Any]:
        config = AgentConfig(hooks={"PreToolUse": [print, Hook(print, "Bash")]}, tools=[add])
        return offering(config, config._given())

    assert told() == told()
    matchers = told()["hooks"]["PreToolUse"]
    assert [one["hookCallbackIds"] for one in matchers] == [["PreToolUse-0"], ["PreToolUse-1"]]
    assert told()["allowed_tools"] == ["mcp__host__add"]
