"""Responsible for turns in which the fake CLI takes too much: memory, processes, time, money."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from fake_speech import (
    BURNER,
    SLEEPER,
    Frame,
    Frames,
    acknowledge,
    result,
    say,
    session_id,
    turn,
)


@turn("spend")
def _(text: str, prompt: Frame, inbox: Frames) -> None:
    """So many messages of 100 tokens, each told in two frames: ``spend COUNT``."""
    count = int(text.split()[1])
    for number in range(count):
        usage = {"input_tokens": 40, "output_tokens": 60, "cache_read_input_tokens": 9000}
        message = {"id": f"{session_id()}-{number}", "usage": usage, "content": []}
        say({"type": "assistant", "message": message})
        say({"type": "assistant", "message": message})
        time.sleep(0.02)
        if poll_interrupt():
            result(
                "stopped",
                prompt,
                subtype="error_during_execution",
                terminal_reason="aborted_streaming",
                is_error=True,
            )
            return
    result("spent", prompt, usage={"input_tokens": 40 * count, "output_tokens": 60 * count})


def poll_interrupt() -> bool:
    """Whether the host asks for the end of the turn."""
    if not select.select([0], [], [], 0)[0]:
        return False
    frame = json.loads(sys.stdin.buffer.readline())
    acknowledge(frame)
    return bool(frame["request"]["subtype"] == "interrupt")


@turn("eat")
def eat(text: str, prompt: Frame, inbox: Frames) -> None:
    """Keep so many MiB in memory: ``eat 100``."""
    held = bytearray(int(text.split()[1]) << 20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(60)


@turn("breed")
def breed(text: str, prompt: Frame, inbox: Frames) -> None:
    """Start so many processes: ``breed 20``."""
    for _ in range(int(text.split()[1])):
        subprocess.Popen(SLEEPER)
    time.sleep(60)


@turn("burn")
def burn(text: str, prompt: Frame, inbox: Frames) -> None:
    """Use up a core for a minute; ``burn child`` lets a child do it."""
    if text == "burn child":
        subprocess.run([sys.executable, "-c", BURNER], check=False)
        time.sleep(60)
    exec(BURNER)


@turn("grow")
def grow(text: str, prompt: Frame, inbox: Frames) -> None:
    """Write a file of so many KiB: ``grow 100 /path``. Python hides SIGXFSZ, programs do not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    _, size, path = text.split()
    Path(path).write_bytes(bytes(int(size) << 10))
    result("grown", prompt)


@turn("limits")
def limits(text: str, prompt: Frame, inbox: Frames) -> None:
    """Say which limits and rights the agent has."""
    told = {
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
        "file_size": resource.getrlimit(resource.RLIMIT_FSIZE)[0],
        "nice": os.nice(0),
        "user": os.getuid(),
        "group": os.getgid(),
        "groups": os.getgroups(),
        "umask": os.umask(0o22),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "no_new_privs": "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
    }
    result(json.dumps(told), prompt)
