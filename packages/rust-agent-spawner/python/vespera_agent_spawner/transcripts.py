"""Responsible for transcripts: what host and agent said, appended as it was said, and played back.

One record per line, its bytes as they were::

    # {"vespera_transcript": 1, "agent_id": …}   what begins here
    < 1732441234.123456 {"type":"assistant",…}    a line of the agent
    > 1732441234.123456 {"type":"user",…}         a line of the host
    ! 1732441234.123456 70000000 {"type":"user"…  a line over the cap: its length and its head
    = {"outcome": "completed", …}                 the result

A file may hold several runs, one after the other. What is said in between is
written by the backends: ``backends/python/transcript.py`` and ``src/agent/transcript.rs``.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vespera_agent_spawner.errors import ConfigError, SpawnError
from vespera_agent_spawner.events import Event, PythonEvent
from vespera_agent_spawner.results import ExitStatus, Outcome, RunResult

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Replay", "begin_transcript", "end_transcript", "opened", "path_in", "replay"]

_VERSION = 1


def path_in(directory: str, agent_id: str) -> str:
    """The transcript of an agent in a supervisor's ``transcript_dir``."""
    return str(Path(directory).expanduser() / f"{quote(agent_id, safe='')}.transcript")


def begin_transcript(config: AgentConfig, session_id: str) -> None:
    """Write the first record; raises ``SpawnError`` (stage transcript) when that cannot be."""
    head = {
        "vespera_transcript": _VERSION,
        "agent_id": config.agent_id,
        "session_id": session_id,
        "adapter": config.adapter,
        "started_at": time.time(),
    }
    try:
        _append(str(config.transcript), b"# " + json.dumps(head).encode() + b"\n")
    except OSError as error:
        raise SpawnError(
            f"agent '{config.agent_id}': the transcript {config.transcript} cannot be written: "
            f"{error.strerror}; make its directory, or leave transcript out",
            errno=error.errno or errno.EIO,
            program=str(config.program or ""),
            stage="transcript",
            context={"agent_id": config.agent_id},
        ) from error


def end_transcript(path: str, result: RunResult, lost: str | None) -> str | None:
    """Write the last record; why the whole is not whole, ``lost`` first."""
    try:
        _append(path, b"= " + json.dumps(dataclasses.asdict(result)).encode() + b"\n")
    except OSError as error:
        return lost or str(error)
    return lost


def _append(path: str, record: bytes) -> None:
    with open(opened(path), "ab", buffering=0) as file:
        file.write(record)


def opened(path: str) -> int:
    """A descriptor that appends; a new file belongs to its owner alone."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


@dataclass(frozen=True, slots=True)
class Replay:
    """One run or session as a transcript tells it.

    ``result`` is None when the host died before it could write the end. ``said`` are the host's
    lines.
    """

    agent_id: str
    session_id: str
    adapter: str
    started_at: float
    events: list[Event] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    result: RunResult | None = None

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)


def replay(path: str | os.PathLike[str]) -> list[Replay]:
    """Read a transcript back: the events and the result of every run that it holds.

    Raises ``OSError``, and ``ConfigError`` for a file that is no transcript. A last record that
    was cut off (the host was killed while it wrote) is left out.
    """
    found: list[Replay] = []
    with Path(path).open("rb") as file:
        for number, record in enumerate(file, start=1):
            if not record.endswith(b"\n"):
                break
            mark, _, rest = record[:-1].partition(b" ")
            try:
                _read(found, mark, rest)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise ConfigError(
                    f"{os.fspath(path)}: line {number} is no record of a transcript ({error!r})",
                    field="path",
                    value=os.fspath(path),
                    remedy="give a file that 'transcript' or 'transcript_dir' has written",
                ) from error
    return found


def _read(found: list[Replay], mark: bytes, rest: bytes) -> None:
    if mark == b"#":
        head = json.loads(rest)
        if head["vespera_transcript"] != _VERSION:
            raise ValueError(f"version {head['vespera_transcript']} is unknown")
        names = ("agent_id", "session_id", "adapter", "started_at")
        found.append(Replay(*(head[name] for name in names)))
        return
    if mark == b"=":
        found[-1] = dataclasses.replace(found[-1], result=_result(json.loads(rest)))
        return
    at, _, line = rest.partition(b" ")
    if mark == b">":
        found[-1].said.append(line)
    elif mark == b"!":
        length, _, head = line.partition(b" ")
        found[-1].events.append(PythonEvent("oversize", head, float(at), int(length)))
    elif mark == b"<":
        kind = kind_of(line) if found[-1].adapter != "raw" else "output"
        if kind != "control_response":
            found[-1].events.append(PythonEvent(kind, line, float(at), len(line)))
    else:
        raise ValueError(f"unknown mark {mark!r}")


def kind_of(line: bytes) -> str:
    """The kind of the event that a line of a CLI is."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return "output"
    kind = frame.get("type") if isinstance(frame, dict) else None
    return kind if isinstance(kind, str) else "output"


def _result(fields: dict[str, Any]) -> RunResult:
    status = fields.pop("exit")
    outcome = Outcome(fields.pop("outcome"))
    known = {entry.name for entry in dataclasses.fields(RunResult)}
    return RunResult(
        outcome=outcome,
        exit=None if status is None else ExitStatus(**status),
        **{name: value for name, value in fields.items() if name in known},
    )
