"""`vespera logs` as the user calls it: what happened to an agent, and what was said."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.screen import console_for
from vespera_server.redaction import Redactor
from vespera_server.settings import load_settings
from vespera_server.state.directory import StateDirectory
from vespera_server.watch.finding import living
from vespera_server.watch.sources import NothingKept, Source, source_of
from vespera_server.watch.transcripts import Said, read_said

__all__ = ["logs"]


def logs(
    agent_id: str,
    *,
    pid: int | None,
    run: str | None,
    database: Path | None,
    follow: bool,
    tail: int | None,
    everything: bool,
    raw: bool,
    as_json: bool,
) -> int:
    """0; 1: nothing of the agent is kept; 2: it is not known, or cannot be read."""
    try:
        state = StateDirectory(load_settings().values.state.directory)
        source = source_of(agent_id, living, state, pid=pid, run=run, database=database)
        if raw:
            return _raw(source)
        redactor = Redactor.for_environment(os.environ)
        lines = _lines(source, follow=follow, everything=everything)
        if tail is not None:
            so_far = _lines(source, follow=False, everything=everything)
            lines = _last(lines, tail, so_far, follow and source.is_alive())
        shown = 0
        for shown, line in enumerate(lines, start=1):  # noqa: B007 - counted
            _show(line, redactor, as_json)
        if not shown:
            raise _nothing_said(source)
        return 0
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever reads has seen enough; what Python would still flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except NothingKept as error:
        return _refuse(error, 1)
    except (AgentError, OSError, RuntimeError) as error:
        return _refuse(error, 2)


def _refuse(error: Exception, code: int) -> int:
    words = Redactor().text(f"vespera logs: {error}")
    console_for(stderr=True).print(words, style="red", markup=False, soft_wrap=True)
    return code


def _raw(source: Source) -> int:
    if source.transcript is None:
        raise _nothing_said(source)
    with source.transcript.open("rb") as file:
        while piece := file.read(1 << 20):
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0


def _lines(source: Source, *, follow: bool, everything: bool) -> Iterator[Said]:
    """The queue's events and what was said, in the order of their times."""
    noted = deque(_noted(event) for event in source.events())
    if source.transcript is not None:
        with contextlib.suppress(FileNotFoundError):  # noted before the first word is written
            said = read_said(
                source.transcript,
                follow=source.is_alive if follow else None,
                everything=everything,
            )
            for each in said:
                while noted and each.at is not None and (noted[0].at or 0.0) <= each.at:
                    yield noted.popleft()
                yield each
    yield from noted


def _noted(event: dict[str, Any]) -> Said:
    detail = {key: value for key, value in event.items() if key not in ("at", "kind")}
    words = " ".join(f"{key}={value}" for key, value in detail.items())
    return Said(event["at"], "queue", event["kind"], f"{event['kind']} {words}".rstrip(), event)


def _last(lines: Iterator[Said], tail: int, so_far: Iterable[Said], follow: bool) -> Iterator[Said]:
    if not follow:
        return iter(deque(lines, maxlen=tail))
    # What is there already is counted first; then it is followed from there.
    skipped = max(0, sum(1 for _ in so_far) - tail)
    return itertools.islice(lines, skipped, None)


def _nothing_said(source: Source) -> NothingKept:
    return NothingKept(
        f"no transcript of '{source.agent_id}' is kept: it never started, or is gone"
    )


def _show(said: Said, redactor: Redactor, as_json: bool) -> None:
    if as_json:
        told = redactor.value(dataclasses.asdict(said))
        print(json.dumps(told, ensure_ascii=False), flush=True)
        return
    when = "" if said.at is None else time.strftime("%H:%M:%S", time.localtime(said.at))
    text = _harmless(redactor.text(said.text or said.kind))
    first, *rest = text.split("\n")
    print(f"{when:8} {said.who:7} {first}")
    for line in rest:
        print(f"{'':16} {line}")
    sys.stdout.flush()


def _harmless(text: str) -> str:
    """Without what would command the terminal: the words are an agent's."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else f"\\x{ord(letter):02x}"
        for letter in text.replace("\r\n", "\n")
    )
