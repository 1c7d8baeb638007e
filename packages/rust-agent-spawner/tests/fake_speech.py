"""Responsible for how the fake CLI speaks: frames out and in, and the turns it knows by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
BURNER = "import time; end = time.time() + 60\nwhile time.time() < end: pass"
Frame: TypeAlias = dict[str, Any]
Frames: TypeAlias = Iterator[Frame]
Turn: TypeAlias = Callable[[str, Frame, Frames], None]
TURNS: dict[str, Turn] = {}
TOLD: list[Frame] = []
SESSION: dict[str, str] = {}
cost = 0.0


def say(frame: Frame) -> None:
    sys.stdout.buffer.write(json.dumps(frame, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def result(text: str, prompt: Frame, **more: object) -> None:
    """The frame's kind stands last: key order is free, nobody may sniff it from the start."""
    global cost
    cost += 0.25
    say(
        {
            "duration_api_ms": 1,
            "subtype": "success",
            "is_error": False,
            "duration_ms": 2,
            "num_turns": 1,
            "session_id": session_id(),
            "total_cost_usd": cost,
            "usage": {"input_tokens": 3, "output_tokens": 5},
            "result": text,
            "user_message_uuids": [prompt["uuid"]] if "uuid" in prompt else [],
            **more,
            "type": "result",
        }
    )


def session_id() -> str:
    if "now" in SESSION:
        return SESSION["now"]
    for flag in ("--session-id=", "--resume="):
        for word in sys.argv:
            if word.startswith(flag):
                return word.partition("=")[2]
    return "none"


def frames() -> Frames:
    for line in sys.stdin.buffer:
        yield json.loads(line)


def turn(word: str) -> Callable[[Turn], Turn]:
    def register(function: Turn) -> Turn:
        assert word not in TURNS, f"two turns are called {word!r}"
        TURNS[word] = function
        return function

    return register


def acknowledge(frame: Frame, **more: object) -> None:
    say(
        {
            "type": "control_response",
            "response": {
                "subtype": "success",
                "request_id": frame["request_id"],
                "response": {"commands": [], **more},
            },
        }
    )
