#!/usr/bin/env python3
"""Responsible for what no model does on command: a claude CLI that misbehaves as it is told.

It speaks the CLI's stream-json. FAKE_CLAUDE names what it does from its start, the first word of
a prompt what it does in that turn. Every process it leaves behind ends itself after a minute.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_appetites  # noqa: F401 - its turns are known by name
import fake_speech
from fake_speech import (
    SESSION,
    SLEEPER,
    TOLD,
    TURNS,
    Frame,
    Frames,
    acknowledge,
    frames,
    raw,
    result,
    say,
    session_id,
    turn,
)


@turn("echo")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    say({"type": "assistant", "message": {"content": [{"type": "text", "text": text}]}})
    result(text, prompt)


@turn("argv")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result(json.dumps(sys.argv), prompt)


@turn("environment")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result(json.dumps(dict(os.environ)), prompt)


@turn("fail")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result("the model said no", prompt, is_error=True, api_error_status=401)


@turn("loggedout")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """As the real CLI without credentials: it asks nobody, and no status tells."""
    words = "Not logged in · Please run /login"
    content = [{"type": "text", "text": words}]
    say(
        {
            "type": "assistant",
            "error": "authentication_failed",
            "is_api_error_message": True,
            "message": {"model": "<synthetic>", "content": content},
        }
    )
    result(words, prompt, is_error=True, api_error_status=None, terminal_reason="api_error")


@turn("big")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    size = int(text.split()[1])
    say({"type": "assistant", "message": {"content": [{"type": "text", "text": "x" * size}]}})
    result("y" * size, prompt)


@turn("oversize")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    for _ in range(65):
        raw(b"z" * (1024 * 1024))
    raw(b"\n")
    result("after the oversize line", prompt)


@turn("separators")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result("a\u2028b\u0085c\u2029d", prompt)


@turn("split")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    line = json.dumps(
        {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "result": "häßlich 🦀 日本",
            "session_id": session_id(),
        },
        ensure_ascii=False,
    ).encode()
    for byte in line:
        raw(bytes([byte]))
        time.sleep(0.0005)
    raw(b"\n")


@turn("unknown")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    raw(b"this is no JSON\n\n[1, 2]\n\xff\xfe\x00\n")
    say({"type": "thing_of_tomorrow", "payload": {"deep": [1, 2]}})
    say({"type": {"not": "text"}})
    say({"type": "system", "subtype": "thing_of_tomorrow"})
    say({"type": "control_response", "response": {"request_id": "nobody", "subtype": "success"}})
    result("still here", prompt)


@turn("permission")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    ask = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "id"}}
    say({"type": "control_request", "request_id": "ask-1", "request": ask})
    say({"type": "control_request", "request_id": "ask-2", "request": {"subtype": "new_ask"}})
    answers = [next(inbox)["response"], next(inbox)["response"]]
    answers.sort(key=lambda answer: answer["request_id"])
    result(json.dumps(answers), prompt)


@turn("calls")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Requests to the host: calls JSON. A number takes that one back; the result has answers."""
    missing = set()
    for number, request in enumerate(json.loads(text.partition(" ")[2])):
        if isinstance(request, int):
            say({"type": "control_cancel_request", "request_id": f"{request}"})
            missing.discard(f"{request}")
        else:
            say({"type": "control_request", "request_id": f"{number}", "request": request})
            missing.add(f"{number}")
    answers: dict[str, Frame] = {}
    while missing - answers.keys():
        response = next(inbox)["response"]
        answers[response["request_id"]] = response
    result(json.dumps(answers), prompt)


@turn("foreign")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result("of a background task", {"uuid": "somebody-else"}, origin={"kind": "task-notification"})
    result("of the turn", prompt)


@turn("burst")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Many events of a size: burst COUNT BYTES."""
    count, size = map(int, text.split()[1:])
    for number in range(count):
        block = {"type": "text", "text": f"{number}:" + "x" * size}
        say({"type": "assistant", "message": {"content": [block]}})
    result("after the burst", prompt)


@turn("task")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """A background task: its own result comes after the turn's."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("started a task", prompt)
    time.sleep(0.3)
    say({"type": "system", "subtype": "task_notification", "task_id": "t1", "status": "completed"})
    result("the task is done", {"uuid": "of-the-task"})


@turn("tool")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Uses a tool that never comes back."""
    use = {"type": "tool_use", "id": "u1", "name": text.split()[1], "input": {}}
    say({"type": "assistant", "message": {"content": [use]}})
    TURNS["hang"](text, prompt, inbox)


@turn("model")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """What it was told by set_model since its start."""
    result(json.dumps(TOLD), prompt)


@turn("hang")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Waits for an interrupt and then ends its turn as the real CLI does."""
    for frame in inbox:
        if frame.get("request", {}).get("subtype") == "interrupt":
            acknowledge(frame)
            result(
                "",
                prompt,
                subtype="error_during_execution",
                is_error=True,
                terminal_reason="aborted_streaming",
            )
            return


@turn("later")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Answers after so many seconds, whatever it is told meanwhile: ``later 2.5``."""
    time.sleep(float(text.split()[1]))
    result("later", prompt)


@turn("retry")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Is refused so many times by the service, then waits on: ``retry STATUS COUNT DELAY``;
    ``… deaf`` hears no interrupt."""
    status, count, delay = map(int, text.split()[1:4])
    names = {401: "authentication_failed", 429: "rate_limit", 529: "overloaded"}
    for attempt in range(1, count + 1):
        say(
            {
                "type": "system",
                "subtype": "api_retry",
                "attempt": attempt,
                "max_retries": 10,
                "retry_delay_ms": delay,
                "error_status": status,
                "error": names.get(status, "server_error"),
            }
        )
    TURNS["deaf" if text.endswith("deaf") else "hang"](text, prompt, inbox)


@turn("limit")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Tells of a limit of the service: ``limit {"status": …}``."""
    info = json.loads(text.partition(" ")[2])
    say({"type": "rate_limit_event", "rate_limit_info": info, "session_id": session_id()})
    result("told", prompt)


@turn("ask")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Asks for a tool and then works on for so many seconds: ``ask 0.5``."""
    ask = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "id"}}
    say({"type": "control_request", "request_id": "ask-1", "request": ask})
    answer = next(inbox)
    time.sleep(float(text.split()[1]))
    result(json.dumps(answer), prompt)


@turn("withdraw")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Asks for a tool, takes that back and hangs."""
    ask = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "id"}}
    say({"type": "control_request", "request_id": "ask-1", "request": ask})
    say({"type": "control_cancel_request", "request_id": "ask-1"})
    TURNS["hang"](text, prompt, inbox)


@turn("forget")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Its conversation begins anew, under another id."""
    SESSION["now"] = text.split()[1]
    say({"type": "conversation_reset", "new_conversation_id": SESSION["now"]})
    result("forgotten", prompt)


@turn("endless")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Starts a background task that never ends."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("started a task", prompt)


@turn("deaf")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """No interrupt reaches it."""
    time.sleep(60)


@turn("die")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    sys.stderr.write("fatal: the disk is on fire\n")
    sys.stderr.flush()
    os._exit(3)


@turn("You")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """What a session that goes on after its end is told: "You were ended …"."""
    result(json.dumps({"argv": sys.argv, "prompt": text}), prompt)


@turn("speak-and-die")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    say({"type": "assistant", "message": {"content": [{"type": "text", "text": "I begin"}]}})
    os._exit(3)


@turn("die-until")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Dies without a word until it is tried for the third time: ``die-until FILE``."""
    file = Path(text.split()[1])
    tries = [*file.read_text().splitlines(), session_id()] if file.exists() else [session_id()]
    file.write_text("\n".join(tries))
    if len(tries) < 3:
        os._exit(3)
    result(json.dumps(tries), prompt)


@turn("crash")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@turn("midline")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    raw(b'{"type":"result","subtype":"succ')
    os._exit(0)


@turn("lastline")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """The result is the last thing it writes, without a newline."""
    raw(b'{"type":"result","subtype":"success","is_error":false,"result":"last words"}')
    os._exit(0)


@turn("mute")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Closes its output and lives on."""
    os.close(1)
    time.sleep(60)


@turn("leave")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Leaves one process behind, which holds its pipes and has a session of its own."""
    child = subprocess.Popen(SLEEPER, start_new_session=True)
    result(str(child.pid), prompt)


@turn("orphan")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """A double fork: the middle one exits, so that descent no longer shows the last one."""
    code = (
        "import subprocess as s;"
        f"print(s.Popen({SLEEPER!r}, start_new_session=True, stdout=s.DEVNULL).pid)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, check=True
    )
    result(made.stdout.decode().strip(), prompt)


@turn("flood")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """More stderr than any pipe holds, before the answer."""
    for _ in range(64):
        sys.stderr.write("e" * 65536)
    sys.stderr.write("\nend of the flood\n")
    sys.stderr.flush()
    result("after the flood", prompt)


@turn("length")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    result(str(len(text)), prompt)


@turn("say")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Exactly these lines: say ["…", "…"]."""
    for line in json.loads(text.partition(" ")[2]):
        raw(line.encode() + b"\n")


@turn("reset")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """The conversation goes on under another id."""
    say({"type": "conversation_reset", "new_conversation_id": "moved"})
    result("moved", prompt, session_id="moved")


@turn("play")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Plays steps: play [a frame to say, seconds to wait, "hear" (a frame), a turn by name]."""
    for step in json.loads(text.partition(" ")[2]):
        if isinstance(step, dict):
            say(step)
        elif step == "hear":
            next(inbox)
        elif isinstance(step, str):
            TURNS[step.split()[0]](step, prompt, inbox)
        else:
            time.sleep(step)


@turn("pester")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Many asks, one after the other, behind as many big events: pester COUNT BYTES."""
    count, size = map(int, text.split()[1:])
    for number in range(count):
        say({"type": "assistant", "message": {"content": [{"type": "text", "text": "x" * size}]}})
        ask = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
        say({"type": "control_request", "request_id": f"ask-{number}", "request": ask})
        assert next(inbox)["response"]["request_id"] == f"ask-{number}"
    result("all answered", prompt)


@turn("over-and-over")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Says its result again and again, and does not leave."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        result("again", prompt)
        time.sleep(0.05)


@turn("stay")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Answers, and then neither reads nor leaves."""
    result("answered", prompt)
    time.sleep(60)


@turn("twice")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """A background task whose result comes after a second system/init."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("first", prompt)
    say({"type": "system", "subtype": "init", "session_id": session_id()})
    say({"type": "system", "subtype": "task_notification", "task_id": "t1", "status": "completed"})
    result("second", {"uuid": "of-the-task"})


@turn("quiet-task")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """A background task that ends without a result of its own."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("the only one", prompt)
    patch = {"status": "killed"}
    say({"type": "system", "subtype": "task_updated", "task_id": "t1", "patch": patch})


@turn("late-ask")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Its background task asks for a tool after the turn's result: stdin must still be open."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("not yet", prompt)
    ask = {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}}
    say({"type": "control_request", "request_id": "late", "request": ask})
    answer = next(inbox)["response"]
    say({"type": "system", "subtype": "task_notification", "task_id": "t1", "status": "completed"})
    result(answer["response"]["behavior"], {"uuid": "of-the-task"})


@turn("over-budget")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """A subagent trips the budget: an error as result, the task never heard of again."""
    say({"type": "system", "subtype": "task_started", "task_id": "t1"})
    result("", prompt, subtype="error_max_budget_usd", is_error=True)
    time.sleep(60)


@turn("both-ways")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """Says more than any pipe holds while it is told more than any pipe holds."""
    for _ in range(64):
        block = {"type": "text", "text": "x" * 65536}
        say({"type": "assistant", "message": {"content": [block]}})
    result(str(len(text)), prompt)


def begin(how: str) -> None:
    resumes = any(word.startswith("--resume=") for word in sys.argv)
    if how == "exit":
        sys.exit("error: Not logged in. Run claude login")
    if how == "exit-holding-pipes":
        # A grandchild holds stdout and stderr open: exit must not wait for the pipes' end.
        subprocess.Popen(SLEEPER, start_new_session=True)
        sys.exit("error: bad flag")
    if how == "forgetful" and resumes:
        sys.exit(f"No conversation found with session ID: {session_id()}")
    if how.startswith("hesitant") and resumes and "--fork-session" not in sys.argv:
        # Once it does not come so far as to say a word: it never starts, or ends in its turn.
        tried = Path("tried")
        if not tried.exists():
            tried.touch()
            if how == "hesitant":
                sys.exit("a hiccup")
            TURNS["You"] = TURNS["die"]
    if how.startswith("restores") and resumes:
        # As the real one, which goes on with the session's bill unless it was killed.
        fake_speech.cost = 1.0
    if how == "silent":
        sys.stderr.write("waiting for the MCP server\n")
        sys.stderr.flush()
        time.sleep(60)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how == "term":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    if how == "gabby":
        # Says more than a pipe holds before it reads anything.
        for _ in range(64):
            say({"type": "system", "subtype": "status", "text": "x" * 65536})
    if how == "unread":
        acknowledge(json.loads(sys.stdin.buffer.readline()))
        time.sleep(60)
    if how == "hooked":
        # As one with a hook for its start, and an MCP server in its host.
        sys.stderr.write("a hook was slow\n")
        sys.stderr.flush()
        say({"type": "system", "subtype": "hook_started"})
        ask = {"subtype": "mcp_message", "server_name": "calc", "message": {}}
        say({"type": "control_request", "request_id": "server", "request": ask})
        say({"type": "system", "subtype": "hook_response"})
    if how == "noise":
        raw(b"Welcome!\n" + b"\n")
        say({"type": "system", "subtype": "status"})


def main() -> None:
    how = os.environ.get("FAKE_CLAUDE", "")
    begin(how)
    inbox = frames()
    for frame in inbox:
        if frame.get("type") == "control_request":
            if how == "refuse":
                say(
                    {
                        "type": "control_response",
                        "response": {
                            "subtype": "error",
                            "request_id": frame["request_id"],
                            "error": "unsupported initialize",
                        },
                    }
                )
            elif frame["request"]["subtype"] == "get_usage" and how == "restores":
                acknowledge(frame, session={"total_cost_usd": fake_speech.cost})
            else:
                TOLD.append(frame["request"])
                _, is_asked, version = how.partition("version ")
                acknowledge(frame, **({"version": version} if is_asked else {}))
                if how == "plugged":
                    # It never reads again.
                    time.sleep(60)
        elif frame.get("type") == "user":
            text = frame["message"]["content"]
            say({"type": "system", "subtype": "init", "session_id": session_id()})
            TURNS[text.split(maxsplit=1)[0]](text, frame, inbox)
    if how in ("stubborn", "term"):
        time.sleep(60)


main()
