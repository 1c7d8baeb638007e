#!/usr/bin/env python3
"""Responsible for a CLI that is cheap to start and keeps sessions the way the real one does.

It speaks the real CLI's stream-json, asks the same Messages API and runs its Bash tool. As with
the real one a session exists once the model has answered in it, and is refused before that. What
this stand-in does fast the tests in tests/real_cli do with the real CLI.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

Frame = dict[str, Any]


def option(name: str) -> str | None:
    for word in sys.argv:
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def say(frame: Frame) -> None:
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


def ask_model(session: str, messages: list[Frame]) -> Frame:
    body = {
        "model": option("model") or "stand-in",
        "max_tokens": 100,
        "messages": messages,
        "tools": [{"name": "Bash"}],
    }
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        json.dumps(body).encode(),
        {"content-type": "application/json", "x-claude-code-session-id": session},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        reply: Frame = json.load(answer)
    return reply


def run_tool(block: Frame) -> Frame:
    done = subprocess.run(
        ["sh", "-c", block["input"]["command"]],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        check=False,
    )
    return {"type": "tool_result", "tool_use_id": block["id"], "content": done.stdout}


class Session:
    """A conversation on disk."""

    def __init__(self, session: str, file: Path) -> None:
        self.session = session
        self.file = file
        self.cost = 0.0
        self.messages: list[Frame] = json.loads(file.read_text()) if file.exists() else []

    def turn(self, prompt: str) -> str:
        """From a prompt to the model's last word."""
        self.messages.append({"role": "user", "content": [{"type": "text", "text": prompt}]})
        while True:
            reply = ask_model(self.session, self.messages)
            self.cost += 0.01
            content = reply["content"]
            self.messages.append({"role": "assistant", "content": content})
            self.keep()
            say({"type": "assistant", "session_id": self.session, "message": reply})
            calls = [block for block in content if block["type"] == "tool_use"]
            if not calls:
                return "".join(block.get("text", "") for block in content)
            self.messages.append({"role": "user", "content": [run_tool(call) for call in calls]})
            self.keep()

    def keep(self) -> None:
        """Replaced whole: a kill in between leaves the last state."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.messages))
        new.replace(self.file)


def refuse(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.exit(1)


def main() -> None:
    home = Path(os.environ["CLAUDE_CONFIG_DIR"]) / "sessions"
    home.mkdir(parents=True, exist_ok=True)
    resumed = option("resume")
    session = resumed or option("session-id") or "none"
    file = home / f"{session}.json"
    if resumed and not file.exists():
        refuse(f"No conversation found with session ID: {session}")
    if not resumed and file.exists():
        refuse(f"Error: Session ID {session} is already in use.")
    conversation = Session(session, file)
    for line in sys.stdin:
        frame = json.loads(line)
        if frame["type"] == "control_request":
            response = {"subtype": "success", "request_id": frame["request_id"], "response": {}}
            say({"type": "control_response", "response": response})
            continue
        if frame["type"] != "user":
            continue
        say({"type": "system", "subtype": "init", "session_id": session})
        content = frame["message"]["content"]
        prompt = content if isinstance(content, str) else content[0]["text"]
        outcome: Frame = {"subtype": "success", "is_error": False}
        try:
            outcome["result"] = conversation.turn(prompt)
        except OSError as error:
            status = getattr(error, "code", None)
            outcome = {"subtype": "success", "is_error": True, "result": f"API Error: {error}"}
            outcome["api_error_status"] = status
        say(
            {
                "type": "result",
                "session_id": session,
                "num_turns": 1,
                "duration_ms": 1,
                "total_cost_usd": conversation.cost,
                "usage": {"input_tokens": 1, "output_tokens": 1},
                "user_message_uuids": [frame["uuid"]] if "uuid" in frame else [],
                **outcome,
            }
        )


if __name__ == "__main__":
    main()
