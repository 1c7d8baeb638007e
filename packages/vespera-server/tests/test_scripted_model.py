"""The scripted model over real HTTP: what a client sees for each kind of step."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from typing import Any

import pytest

from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Stall,
    Step,
    Text,
    ToolUse,
)

TOOLS = [{"name": "Bash", "input_schema": {"type": "object"}}]


def body(prompt: str, *, stream: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "model": "claude-test",
        "stream": stream,
        "tools": TOOLS,
        "messages": [{"role": "user", "content": prompt}],
        **more,
    }


def connect(model: ScriptedModel, timeout: float = 10) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(model.base_url.removeprefix("http://"), timeout=timeout)


def post(
    model: ScriptedModel, payload: Any, path: str = "/v1/messages?beta=true"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = connect(model)
    try:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        connection.request("POST", path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def events(data: bytes) -> list[dict[str, Any]]:
    """Parses server-sent events and checks that the event line agrees with the data."""
    parsed = []
    for block in data.decode().strip().split("\n\n"):
        name, payload = block.split("\n", 1)
        event = json.loads(payload.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        parsed.append(event)
    return parsed


def text_of(data: bytes) -> str:
    return "".join(block["text"] for block in json.loads(data)["content"])


def test_a_stream_has_the_documented_events_in_order() -> None:
    long_text = "seventy characters of text, so that there are several deltas — ünï ☃"
    reply = Reply(Text(long_text), ToolUse("Bash", {"command": "ls " * 20}), output_tokens=7)
    with ScriptedModel({"default": Script(reply)}) as model:
        status, data, headers = post(model, body("hi"))
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    seen = events(data)
    kinds = [event["type"] for event in seen if event["type"] != "content_block_delta"]
    assert kinds == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_stop",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event["delta"] for event in seen if event["type"] == "content_block_delta"]
    assert "".join(d.get("text", "") for d in deltas) == long_text
    tool_input = "".join(d.get("partial_json", "") for d in deltas)
    assert json.loads(tool_input) == {"command": "ls " * 20}
    assert seen[-2]["delta"]["stop_reason"] == "tool_use"
    assert seen[-2]["usage"]["output_tokens"] == 7


def test_without_stream_the_answer_is_one_json_message() -> None:
    with ScriptedModel({"default": Script(Reply(Text("hello")))}) as model:
        status, data, _ = post(model, body("hi", stream=False))
    answer = json.loads(data)
    assert (status, text_of(data)) == (200, "hello")
    assert (answer["role"], answer["stop_reason"]) == ("assistant", "end_turn")
    assert answer["usage"]["input_tokens"] > 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_the_api_shape(status: int, kind: str) -> None:
    with ScriptedModel({"default": Script(Failure(status, retry_after=1.5))}) as model:
        got, data, headers = post(model, body("hi"))
        assert [record.answer for record in model.requests] == [f"{status} {kind}"]
    error = json.loads(data)
    assert (got, error["type"], error["error"]["type"]) == (status, "error", kind)
    assert headers["retry-after"] == "1.5"


def test_the_marker_in_the_first_prompt_chooses_the_script() -> None:
    scripts = {name: Script(then=Reply(Text(name))) for name in ("one", "two", "default")}
    with ScriptedModel(scripts) as model:
        for prompt, name in [("[[script:two]] x", "two"), ("y [[script:one]]", "one"), ("z", None)]:
            _, data, _ = post(model, body(prompt, stream=False))
            assert text_of(data) == (name or "default")
        blocks = [{"type": "text", "text": "reminder"}, {"type": "text", "text": "[[script:two]]"}]
        later = [
            {"role": "assistant", "content": "…"},
            {"role": "user", "content": "[[script:one]]"},
        ]
        messages = [{"role": "user", "content": blocks}, *later]
        _, data, _ = post(model, body("", stream=False, messages=messages))
        assert text_of(data) == "two"


def test_the_model_name_or_a_callable_chooses_too() -> None:
    scripts = {
        "model:claude-test": Script(then=Reply(Text("by model"))),
        "mine": Script(then=Reply(Text("by callable"))),
    }

    def choose(request: ModelRequest) -> str | None:
        return "mine" if "please" in request.first_prompt else None

    with ScriptedModel(scripts, choose=choose) as model:
        assert text_of(post(model, body("hi", stream=False))[1]) == "by model"
        assert text_of(post(model, body("please", stream=False))[1]) == "by callable"


def test_an_unknown_or_exhausted_script_is_a_400_that_says_so() -> None:
    with ScriptedModel({"short": Script(Reply(Text("x")))}) as model:
        status, data, _ = post(model, body("[[script:nope]]"))
        assert (status, b"no script 'nope'; this server has: short" in data) == (400, True)
        assert post(model, body("[[script:short]]"))[0] == 200
        status, data, _ = post(model, body("[[script:short]]"))
        assert (status, b"has 1 steps; request 2" in data) == (400, True)


def test_each_session_walks_its_script_on_its_own() -> None:
    script = Script(Reply(Text("1")), Reply(Text("2")), then=Reply(Text("more")))
    with ScriptedModel({"default": script}) as model:

        def ask(session: str) -> str:
            metadata = {"user_id": json.dumps({"session_id": session})}
            return text_of(post(model, body("same prompt", stream=False, metadata=metadata))[1])

        assert [ask("a"), ask("b"), ask("a"), ask("a"), ask("b")] == ["1", "1", "2", "more", "2"]


def test_a_callable_step_sees_the_tool_result() -> None:
    def repeat(request: ModelRequest) -> Step:
        return Reply(Text(f"{request.last_tool_result}/{request.session_id}"))

    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash"}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "content": [{"type": "text", "text": "42\n"}],
                }
            ],
        },
    ]
    metadata = {"user_id": "user_1_account__session_abc"}
    with ScriptedModel({"default": Script(repeat)}) as model:
        payload = body("", stream=False, messages=messages, metadata=metadata)
        assert text_of(post(model, payload)[1]) == "42/abc"


def test_a_step_that_raises_is_a_400_with_the_reason() -> None:
    def broken(request: ModelRequest) -> Step:
        raise LookupError("oops")

    with ScriptedModel({"default": Script(broken)}) as model:
        status, data, _ = post(model, body("hi"))
    assert (status, b"LookupError: oops" in data) == (400, True)


def test_requests_without_tools_use_up_no_step() -> None:
    with ScriptedModel({"default": Script(Reply(Text("step")))}, errand_reply="title") as model:
        assert text_of(post(model, body("hi", stream=False, tools=[]))[1]) == "title"
        assert text_of(post(model, body("hi", stream=False))[1]) == "step"


@pytest.mark.parametrize("after", [0, 3])
def test_a_cut_stream_ends_without_its_last_chunk(after: int) -> None:
    reply = Reply(Text("x" * 500), break_after=after, break_by="cut")
    with ScriptedModel({"default": Script(reply)}) as model:
        with pytest.raises(http.client.IncompleteRead) as caught:
            post(model, body("hi"))
        assert model.wait_for(lambda r: True, 5).answer == "200 cut"
    partial = caught.value.partial
    assert len(events(partial)) == after if after else partial == b""


def test_a_stream_error_arrives_as_an_event() -> None:
    reply = Reply(Text("x" * 500), break_after=2, break_by="error")
    with ScriptedModel({"default": Script(reply)}) as model:
        _, data, _ = post(model, body("hi"))
    assert [event["type"] for event in events(data)] == ["message_start", "ping", "error"]


@pytest.mark.parametrize(
    "step", [Stall(), Reply(Text("x"), break_after=1, break_by="stall"), Reply(delay=3600)]
)
def test_close_ends_a_silent_connection(step: Step) -> None:
    model = ScriptedModel({"default": Script(step)}).start()
    ended = threading.Event()

    def ask() -> None:
        with contextlib.suppress(http.client.HTTPException, OSError):
            post(model, body("hi"))
        ended.set()

    before = threading.active_count()
    client = threading.Thread(target=ask)
    client.start()
    assert not ended.wait(0.2)
    model.close()
    client.join(10)
    assert ended.is_set()
    assert threading.active_count() <= before


def test_a_bounded_stall_cuts_the_connection() -> None:
    with (
        ScriptedModel({"default": Script(Stall(seconds=0.05))}) as model,
        pytest.raises(http.client.RemoteDisconnected),
    ):
        post(model, body("hi"))


def test_close_ends_idle_kept_alive_connections_and_may_be_repeated() -> None:
    model = ScriptedModel({"default": Script(then=Reply(Text("x")))}).start()
    connection = connect(model)
    for _ in range(3):  # one connection, several requests
        connection.request("POST", "/v1/messages", json.dumps(body("hi")))
        assert connection.getresponse().read()
    model.close()
    model.close()
    connection.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = model.base_url


def test_count_tokens_bad_requests_and_unknown_paths() -> None:
    with ScriptedModel() as model:
        status, data, _ = post(model, body("hi"), "/v1/messages/count_tokens?beta=true")
        assert (status, json.loads(data)["input_tokens"] > 0) == (200, True)
        assert post(model, b"[1]")[0] == 400
        assert post(model, b"\xff{")[0] == 400
        assert post(model, {}, "/v1/nope")[0] == 404
        connection = connect(model)
        connection.request("HEAD", "/")
        assert connection.getresponse().status == 404
        connection.close()
        assert len(model.requests) == 5


def test_a_chunked_request_body_is_read() -> None:
    with ScriptedModel({"default": Script(Reply(Text("ok")))}) as model:
        data = json.dumps(body("hi", stream=False)).encode()
        connection = connect(model)
        pieces = iter([data[:10], data[10:]])
        connection.request("POST", "/v1/messages", pieces, encode_chunked=True)
        assert text_of(connection.getresponse().read()) == "ok"
        connection.close()


def test_many_clients_at_once_each_get_their_own_answer() -> None:
    def echo(request: ModelRequest) -> Step:
        return Reply(Text(request.first_prompt), pace=0.001)

    answers: dict[int, str] = {}
    with ScriptedModel({"default": Script(then=echo)}) as model:

        def ask(number: int) -> None:
            seen = events(post(model, body(f"prompt {number}"))[1])
            answers[number] = "".join(
                e["delta"]["text"] for e in seen if e["type"] == "content_block_delta"
            )

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(model.requests) == 40
    assert answers == {n: f"prompt {n}" for n in range(40)}


def test_wait_for_names_what_was_seen() -> None:
    with ScriptedModel() as model:
        post(model, {}, "/v1/nope")
        with pytest.raises(TimeoutError, match="POST /v1/nope: 404"):
            model.wait_for(lambda record: record.answer == "200", 0.01)


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Script()
