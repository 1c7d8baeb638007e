"""Ctrl-C in a call: raised at once, the agent's state said, nothing left, the session usable.

Promised within 100 ms. A test holds no machine to that: it fails above 1 s and prints the figure.
"""

from __future__ import annotations

import signal
from pathlib import Path

from fake_agents import Agents, eventually, traced
from hosts import Host

BOUND = 1.0
INTERRUPTED = """
def interrupted(call):
    # A Ctrl-C of a terminal goes to the group: agents have groups of their own and never see it.
    at = []
    def press():
        while not ready():
            time.sleep(0.005)
        at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press, daemon=True).start()
    try:
        call()
    except KeyboardInterrupt as error:
        return {"seconds": time.monotonic() - at[0], "notes": getattr(error, "__notes__", [])}
    return {"seconds": None, "notes": []}

def state(name):
    try:
        return spawner.agent_status(name).state.value
    except spawner.AgentNotFound:
        return None
"""


def check(told: dict[str, object], what: str) -> None:
    seconds, notes = told["seconds"], told["notes"]
    assert isinstance(seconds, float), "no KeyboardInterrupt came"
    assert isinstance(notes, list)
    print(f"KeyboardInterrupt in {what} after {seconds * 1000:.1f} ms: {notes}")
    assert seconds < BOUND
    assert any("agent 'a'" in note for note in notes)


def test_in_a_spawn(agents: Agents, tmp_path: Path) -> None:
    code = """
mark = f"FAKE_TRACE={TRACE}".encode()
def running():
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and entry != str(os.getpid()):
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if mark in file.read().split(b"\\0"):
                        return True
        except OSError:
            pass
    return False
ready = running
tell(**interrupted(lambda: spawn("a", "silent")))
tell(state=state("a"), exit=spawner.shutdown_claude_agent("a").by)
"""
    with Host(agents.backend, agents.trace, INTERRUPTED + code, tmp_path) as host:
        check(host.news(), "spawn")
        assert host.news() == {"state": "spawn_failed", "exit": "spawn"}
        assert eventually(lambda: not traced(agents.trace))
        host.ends()


def test_in_a_turn_and_the_session_is_usable_again(agents: Agents, tmp_path: Path) -> None:
    code = """
spawn("a")
ready = lambda: state("a") == "in_turn"
tell(**interrupted(lambda: say("a", "hang")))
tell(next=say("a", "echo again")["result"])
tell(code=spawner.shutdown_claude_agent("a").code)
"""
    with Host(agents.backend, agents.trace, INTERRUPTED + code, tmp_path) as host:
        told = host.news()
        check(told, "execute")
        assert "its state is" in str(told["notes"])
        assert host.news() == {"next": "echo again"}
        assert host.news() == {"code": 0}
        host.ends()


def test_in_a_shutdown_that_goes_on_and_can_be_asked_again(agents: Agents, tmp_path: Path) -> None:
    code = """
spawn("a", "stubborn")
ready = lambda: state("a") == "draining"
tell(**interrupted(lambda: spawner.shutdown_claude_agent("a", 3)))
tell(signal=spawner.shutdown_claude_agent("a", 3).signal)
"""
    with Host(agents.backend, agents.trace, INTERRUPTED + code, tmp_path) as host:
        check(host.news(), "shutdown")
        assert host.news() == {"signal": signal.SIGKILL}
        assert eventually(lambda: not traced(agents.trace))
        host.ends()
