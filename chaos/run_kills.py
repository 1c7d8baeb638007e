"""Responsible for `vespera run` under SIGKILL: kills it at random moments, resumes, looks what is.

One trial: a batch of tasks against a scripted model that lives here, `vespera run` killed once to
three times at random moments, then `vespera run --resume` to the end. What must hold afterwards:

* every task ended ``completed``, and once;
* a task has 1 + its recorded restarts of sessions, and the model heard of none beside them. It
  need not have heard of all: a CLI that is killed before its first request leaves a session that
  is refused, hence restarted, without the model's knowledge (``sessions`` and ``heard`` in the
  ledger say how often);
* no session was launched afresh twice, and no task more often than it has sessions;
* no session was held by two processes at any time (a lock that each CLI holds, not a sample);
* no process with the trial's mark is left.

`python chaos/run_kills.py --kills N --jobs J [--real]` adds to ``run_ledger.jsonl``; `--report`
only reads it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vespera_agent_spawner.adapters.locate import find_program
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse
from vespera_server.tasks import TaskQueue

HERE = Path(__file__).resolve().parent
LEDGER = HERE / "run_ledger.jsonl"
FAKE = HERE.parent / "packages/vespera-server/tests/session_cli.py"
SOURCES = HERE.parent / "packages/vespera-server/src/vespera_server"
TASKS = 4
FILE = """
[run]
agents = 3

[[tasks]]
id = "t${item}"
items = [0, 1, 2]
prompt = "[[script:t${item}]] go"
allowed_tools = ["Bash"]

[[tasks]]
id = "t3"
needs = ["t0", "t1"]
prompt = "[[script:t3]] go"
allowed_tools = ["Bash"]
"""
GONE_WITHIN = 10.0
TAG = f"run-kills-{os.getpid()}"  # of all trials of this process


@dataclass
class Trial:
    """One line of the ledger. ``problems`` is what must be empty."""

    seed: int
    cli: str
    backend: str
    hash: str
    kills_ms: list[int] = field(default_factory=list)
    resumed: int = 0
    restarted: int = 0
    sessions: int = 0
    heard: int = 0
    fresh_launches: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def sources_hash() -> str:
    """Of what decides about tasks: a change of it begins a new count."""
    digest = hashlib.sha256()
    for path in [*sorted((SOURCES / "tasks").glob("*.py")), SOURCES / "run" / "opening.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def marked(tag: str) -> list[int]:
    """Living processes whose mark begins so."""
    mark = f"\0CHAOS_TAG={tag}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def give_up(number: int, frame: object) -> None:
    """The harness itself is told to end: it leaves nothing either."""
    while left := marked(TAG):
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    os._exit(128 + number)


class Stage:
    """The surroundings of one trial."""

    def __init__(self, root: Path, cli: str, backend: str, seed: int) -> None:
        self.root = root
        self.tag = f"{TAG}-{seed}"
        self.place = Surroundings.create(root)
        self.database = root / "batch.db"
        self.file = root / "tasks.toml"
        self.file.write_text(FILE)
        (root / "locks").mkdir()
        self.cli = cli
        self.backend = backend

    def environment(self, model: ScriptedModel) -> dict[str, str]:
        program = str(FAKE) if self.cli == "fake" else find_program(None, os.environ)
        return {
            **self.place.environment(model.base_url),
            **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
            "CHAOS_TAG": self.tag,
            "VESPERA_BACKEND": self.backend,
            "VESPERA_STATE__DIRECTORY": str(self.root / "state"),
            "VESPERA_SUPERVISOR__MEMORY_RESERVE": "0",
            "REAL_CLI": program,
            "LOCKS": str(self.root / "locks"),
            "LAUNCH_LOG": str(self.root / "launches"),
        }

    def start(self, model: ScriptedModel, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "vespera_server", "run", str(self.file)]
        command += ["--database", str(self.database), "--claude", str(HERE / "session_wrapper.py")]
        with (self.root / "output").open("ab") as output:
            return subprocess.Popen(
                [*command, *more],
                env=self.environment(model),
                cwd=self.place.work,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def marked(self) -> list[int]:
        """Living processes with the trial's mark in their environment."""
        return marked(f"{self.tag}\0")

    def launches(self) -> list[tuple[str, str]]:
        try:
            lines = (self.root / "launches").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(word, session) for word, _, session in (line.partition(" ") for line in lines)]


def script(name: str) -> Script:
    """One tool call that takes a while, then an answer; the conversation says how far it is."""

    def step(request: ModelRequest) -> Reply:
        answered = sum(message.get("role") == "assistant" for message in request.messages)
        if answered == 0:
            command = f"echo {name} >> log; sleep 0.3"
            return Reply(ToolUse("Bash", {"command": command, "description": "work"}), delay=0.1)
        return Reply(Text(f"{name} is done"), delay=0.2)

    return Script(then=step)


def run_trial(seed: int, cli: str, backend: str, span: float) -> Trial:
    """Kill within ``span`` seconds, one to three times; then resume to the end."""
    chance = random.Random(seed)
    trial = Trial(seed, cli, backend, sources_hash())
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="rk-", ignore_cleanup_errors=True) as root,
        ScriptedModel({f"t{number}": script(f"t{number}") for number in range(TASKS)}) as model,
    ):
        stage = Stage(Path(root).resolve(), cli, backend, seed)
        try:
            for _ in range(chance.randint(1, 3)):
                more = ("--resume",) if stage.database.exists() and tasks_in(stage) else ()
                host = stage.start(model, *more)
                moment = chance.random() * span
                try:
                    host.wait(moment)
                    break  # it was faster: nothing is left to be killed
                except subprocess.TimeoutExpired:
                    host.kill()
                    host.wait()
                    trial.kills_ms.append(round(moment * 1000))
            more = ("--resume",) if tasks_in(stage) else ()
            host = stage.start(model, *more)
            try:
                code = host.wait(120)
            except subprocess.TimeoutExpired:
                host.kill()
                host.wait()
                code = -1
            if code != 0:
                tail = (stage.root / "output").read_text(errors="replace")[-1500:]
                trial.problems.append(f"exit code {code}: {tail}")
            judge(trial, stage, model)
        finally:
            for pid in stage.marked():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
    trial.seconds = round(time.monotonic() - began, 2)
    return trial


def tasks_in(stage: Stage) -> bool:
    """Whether the first run came so far as to write its tasks."""
    if not stage.database.exists():
        return False
    with TaskQueue(stage.database) as queue:
        return bool(queue.tasks())


def judge(trial: Trial, stage: Stage, model: ScriptedModel) -> None:
    """Fill the trial with what the queue, the model, the launches and /proc say."""
    deadline = time.monotonic() + GONE_WITHIN
    while (left := stage.marked()) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        trial.problems.append(f"{len(left)} processes are left")
    heard: defaultdict[str, set[str]] = defaultdict(set)
    for record in model.requests:
        if record.request is not None and record.script is not None:
            heard[record.script].add(record.request.session_id)
    launches = Counter(stage.launches())
    for word, session in launches:
        if word == "doubled":
            trial.problems.append(f"session {session} was held by two processes")
    with TaskQueue(stage.database) as queue:
        for task in queue.tasks():
            events = queue.events(task.task_id)
            kinds = Counter(event.kind for event in events)
            details = [event.detail for event in events]
            given = {str(detail["session_id"]) for detail in details if "session_id" in detail}
            allowed = 1 + kinds["restarted"]
            fresh = [launches["fresh", session] for session in given]
            what = f"{task.task_id}: {allowed} sessions allowed"
            if task.outcome != "completed" or kinds["ended"] != 1:
                trial.problems.append(f"{what}, {task.outcome}, ended {kinds['ended']} times")
            if not heard[task.task_id] <= given:
                trial.problems.append(f"{what}, the model heard an unknown one")
            if not len(given) == task.attempts == allowed:
                trial.problems.append(f"{what}, {len(given)} given, {task.attempts} attempts")
            if sum(fresh) > allowed or max(fresh, default=0) > 1:
                trial.problems.append(f"{what}, {fresh} fresh launches")
            trial.resumed += kinds["resumed"]
            trial.restarted += kinds["restarted"]
            trial.sessions += len(given)
            trial.heard += len(heard[task.task_id])
            trial.fresh_launches += sum(fresh)
    if set(heard) - {f"t{number}" for number in range(TASKS)}:
        trial.problems.append(f"unknown scripts: {set(heard)}")


def calibrated(cli: str, backend: str) -> float:
    """Seconds that a run takes here and now when nobody kills it."""
    trial_span = 0.0
    with (
        tempfile.TemporaryDirectory(prefix="rk-", ignore_cleanup_errors=True) as root,
        ScriptedModel({f"t{number}": script(f"t{number}") for number in range(TASKS)}) as model,
    ):
        stage = Stage(Path(root).resolve(), cli, backend, 0)
        began = time.monotonic()
        code = stage.start(model).wait(180)
        trial_span = time.monotonic() - began
        if code != 0:
            raise SystemExit((stage.root / "output").read_text(errors="replace"))
    return trial_span


def report(lines: Iterator[dict[str, Any]]) -> None:
    """What the ledger holds, by CLI, for these sources and for all."""
    now = sources_hash()
    groups: defaultdict[tuple[str, str, bool], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["cli"], line["backend"], line["hash"] == now].append(line)
    for (cli, backend, current), trials in sorted(groups.items()):
        sums = {
            name: sum(trial[name] for trial in trials)
            for name in ("resumed", "restarted", "sessions", "heard", "fresh_launches")
        }
        kills = sum(len(trial["kills_ms"]) for trial in trials)
        bad = sum(bool(trial["problems"]) for trial in trials)
        sources = "these sources" if current else "earlier sources"
        print(f"{cli}/{backend}, {sources}: {len(trials)} trials, {kills} kills, {bad} bad, {sums}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--real", action="store_true", help="the real Claude CLI")
    parser.add_argument("--backend", default="rust")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="write nothing to the ledger")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, give_up)
    if not options.report:
        bad = work(options)
        if bad:
            return 1
    if LEDGER.exists():
        report(json.loads(line) for line in LEDGER.read_text().splitlines())
    return 0


def work(options: argparse.Namespace) -> int:
    """Trials until there were enough kills; how many were bad."""
    cli = "real" if options.real else "fake"
    span = calibrated(cli, options.backend)
    print(f"an undisturbed run takes {span:.1f} s; kills come within that", flush=True)
    seeds = iter(range(options.seed or random.randrange(1 << 40), 1 << 62))
    lock = threading.Lock()
    kills = bad = 0

    def one_after_the_other() -> None:
        nonlocal kills, bad
        while kills < options.kills:
            with lock:
                seed = next(seeds)
            trial = run_trial(seed, cli, options.backend, span)
            with lock:
                kills += len(trial.kills_ms)
                bad += bool(trial.problems)
                if not options.smoke:
                    with LEDGER.open("a") as ledger:
                        ledger.write(json.dumps(asdict(trial)) + "\n")
                if trial.problems or kills % 20 < len(trial.kills_ms):
                    print(f"{kills} kills, seed {seed}: {trial.problems or 'good'}", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        for future in [pool.submit(one_after_the_other) for _ in range(options.jobs)]:
            future.result()
    return bad


if __name__ == "__main__":
    sys.exit(main())
