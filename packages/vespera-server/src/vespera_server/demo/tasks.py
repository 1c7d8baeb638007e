"""What the demo's agents are asked to do, how the scripted model leads them, what must follow.

Every check looks at what really happened (files, a test run's output), not at the script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vespera_server.demo.project import BUG, FIX
from vespera_server.scripted_model import Failure, ModelRequest, Reply, Script, Text, ToolUse

TOOLS = ("Bash", "Edit", "Read", "Write")

_RUN_TESTS = "python3 -m unittest 2>&1 | tail -n 3"

# `exec` keeps the pid that was written; setsid takes the process out of the shell's session and
# group, as daemons and language servers do.
_LEAVE_BEHIND = (
    "setsid sh -c 'echo $$ > background.pid; exec sleep 300' >/dev/null 2>&1 </dev/null & "
    "while [ ! -s background.pid ]; do sleep 0.05; done; echo started $(cat background.pid)"
)


@dataclass(frozen=True)
class Task:
    """One kind of agent.

    `script` and `check` get the agent's scratch copy; `check` also gets the turn's answer and
    returns what is wrong, or None. `fails` marks the agent that is meant to fail,
    `leaves_process` the one whose tree must be swept.
    """

    name: str
    prompt: str
    script: Callable[[Path], Script]
    check: Callable[[Path, str], str | None]
    fails: bool = False
    leaves_process: bool = False


def _say_last_result(request: ModelRequest) -> Reply:
    return Reply(Text(f"The command printed: {request.last_tool_result}"))


def _edit_script(copy: Path) -> Script:
    path = str(copy / "inventory.py")
    return Script(
        Reply(Text("I look at the code first."), ToolUse("Read", {"file_path": path})),
        Reply(ToolUse("Edit", {"file_path": path, "old_string": BUG, "new_string": FIX})),
        Reply(ToolUse("Bash", {"command": _RUN_TESTS, "description": "Run the tests"})),
        _say_last_result,
    )


def _edit_check(copy: Path, answer: str) -> str | None:
    if FIX not in (copy / "inventory.py").read_text(encoding="utf-8"):
        return "inventory.py still has the bug"
    return None if "OK" in answer else "the test run after the edit is not OK"


def _test_script(_copy: Path) -> Script:
    return Script(
        Reply(ToolUse("Bash", {"command": _RUN_TESTS, "description": "Run the tests"})),
        _say_last_result,
    )


def _test_check(_copy: Path, answer: str) -> str | None:
    return None if "failures=1" in answer else "the test run did not report its one failure"


def _background_script(_copy: Path) -> Script:
    command = {"command": _LEAVE_BEHIND, "description": "Start a background process"}
    return Script(Reply(ToolUse("Bash", command)), _say_last_result)


def _background_check(copy: Path, _answer: str) -> str | None:
    return None if (copy / "background.pid").is_file() else "no background process was started"


def _fail_script(copy: Path) -> Script:
    return Script(
        Reply(ToolUse("Read", {"file_path": str(copy / "README.md")})),
        # Repeated: the CLI sends a refused request again in reduced forms before it gives up.
        then=Failure(400, "this agent is meant to fail"),
    )


def _read_script(copy: Path) -> Script:
    def count(request: ModelRequest) -> Reply:
        # Two reads at once may answer in either order.
        stock = next(text for text in request.tool_results if "item,price,count" in text)
        rows = stock.count(",") // 2 - 1  # two commas per line, one header
        return Reply(Text(f"The shop has {rows} kinds of goods."))

    return Script(
        Reply(
            ToolUse("Read", {"file_path": str(copy / "README.md")}),
            ToolUse("Read", {"file_path": str(copy / "stock.csv")}),
        ),
        count,
    )


def _read_check(_copy: Path, answer: str) -> str | None:
    right = "4" in answer or "four" in answer.lower()
    return None if right else "the answer does not have the number of goods, 4"


def _write_script(copy: Path) -> Script:
    text = "# Summary\n\nFour kinds of goods. Their value is wrong until the bug is fixed.\n"
    target = {"file_path": str(copy / "SUMMARY.md"), "content": text}
    return Script(
        Reply(ToolUse("Write", target)),
        Reply(ToolUse("Bash", {"command": "wc -w SUMMARY.md", "description": "Count words"})),
        _say_last_result,
    )


def _write_check(copy: Path, _answer: str) -> str | None:
    return None if (copy / "SUMMARY.md").is_file() else "SUMMARY.md was not written"


def _nothing_to_check(_copy: Path, _answer: str) -> str | None:
    return None


TASKS: tuple[Task, ...] = (
    Task(
        "edit",
        "inventory.value() forgets the count. Fix it with Edit, run "
        f"`{_RUN_TESTS}` and tell what it printed, word for word.",
        _edit_script,
        _edit_check,
    ),
    Task(
        "test",
        f"Run `{_RUN_TESTS}` with Bash, change nothing, and tell what it printed, word for word.",
        _test_script,
        _test_check,
    ),
    Task(
        "background",
        f"Run exactly this with Bash, once, not in the background: {_LEAVE_BEHIND}",
        _background_script,
        _background_check,
        leaves_process=True,
    ),
    Task(
        "fail",
        "Read README.md, then inventory.py, then stock.csv, one after the other.",
        _fail_script,
        _nothing_to_check,
        fails=True,
    ),
    Task(
        "read",
        "Read README.md and stock.csv. How many kinds of goods are there? Answer with the number.",
        _read_script,
        _read_check,
    ),
    Task(
        "write",
        "Write a summary of this project in two sentences to SUMMARY.md.",
        _write_script,
        _write_check,
    ),
)


def tasks_for(agents: int) -> list[tuple[str, Task]]:
    """Agent ids with their tasks: the six in order, again and again up to `agents`."""
    chosen = []
    for number in range(agents):
        lap, place = divmod(number, len(TASKS))
        chosen.append((f"{TASKS[place].name}-{lap + 1}", TASKS[place]))
    return chosen
