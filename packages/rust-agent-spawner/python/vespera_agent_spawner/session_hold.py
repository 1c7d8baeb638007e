"""Responsible for a CLI session that goes on in one process at a time.

Two processes that append to one session destroy each other's conversation. Whoever resumes one
holds it first: by a file that names the host (pid and start time, so that nobody is taken for a
dead one), and by a look at the command lines of the CLIs that run. A fresh session has a uuid4
that nobody else knows, and needs neither.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.backends.python.proc import start_time

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

if os.name == "posix":
    import fcntl

__all__ = ["Hold", "held", "holders", "take_hold"]

_LOG = logger_for("agent_spawner.supervisor")

_PROC = Path("/proc")
# It is held for a millisecond; whoever holds it longer was stopped.
_TRIES, _BETWEEN = 20, 0.002


class Hold:
    """A session that this process has; given back by ``release`` or with the last reference."""

    def __init__(self, file: Path) -> None:
        self._file: Path | None = file
        self._owner = os.getpid()

    def release(self) -> None:
        """Let others have it; safe to call twice, and nothing in a forked child."""
        file, self._file = self._file, None
        if file is not None and self._owner == os.getpid():
            with contextlib.suppress(OSError):
                file.unlink()

    def __del__(self) -> None:
        self.release()


def take_hold(session_id: str) -> Hold | None:
    """Hold a session before it is resumed; None when a living process has it.

    Raises ``OSError`` where no private directory can be had.
    """
    if os.name != "posix":
        raise OSError("sessions are held on POSIX systems only")
    place = _place()
    file = place / quote(session_id, safe="")
    with _alone(place):
        if _is_held(file) or holders(session_id):
            return None
        fresh = place / f".{file.name}.{os.getpid()}"
        fresh.write_text(f"{os.getpid()} {start_time(os.getpid())}", encoding="ascii")
        fresh.replace(file)
    return Hold(file)


def held(config: AgentConfig) -> tuple[AgentConfig, Hold | None]:
    """How to resume a session: alone, or in a fork where another process has it."""
    session_id = str(config.resume)
    try:
        hold = take_hold(session_id)
    except OSError as error:
        _LOG.warning("whether session %s is in use is not known: %s", session_id, error)
        return config, None
    if hold is None:
        _LOG.warning(
            "agent '%s': session %s is in use by another process, so it is forked",
            config.agent_id,
            session_id,
        )
        config = config._having({"fork_session": True, "session_id": None})
    return config, hold


def holders(session_id: str) -> list[int]:
    """Process ids of the CLIs that run this session; none where there is no /proc."""
    wanted = {f"{flag}={session_id}".encode() for flag in ("--session-id", "--resume")}
    try:
        processes = [entry for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    return [int(entry.name) for entry in processes if not wanted.isdisjoint(_arguments(entry))]


def _arguments(process: Path) -> set[bytes]:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return set()
    # A fork reads the session and writes into one of its own.
    if b"--fork-session" in words:
        return set()
    # A person writes flag and id apart.
    pairs = {
        (b"--resume" if flag == b"-r" else flag) + b"=" + value
        for flag, value in itertools.pairwise(words)
        if flag in (b"-r", b"--resume", b"--session-id")
    }
    return pairs.union(words)


def _is_held(file: Path) -> bool:
    try:
        pid, started = file.read_text("ascii").split()
        return str(start_time(int(pid))) == started
    except (OSError, ValueError):
        return False


def _place() -> Path:
    """A directory of this user's own: a name in a shared one can be anybody's."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    place = base / f"vespera-{os.getuid()}" / "sessions"
    for directory in (place.parent, place):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        if found.st_uid != os.getuid() or not directory.is_dir() or directory.is_symlink():
            raise PermissionError(f"{directory} belongs to somebody else; remove it")
    return place


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    lock = os.open(place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for _ in range(_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_BETWEEN)
        else:
            raise BlockingIOError(f"{place / '.lock'} is held by somebody who does not let go")
        yield
    finally:
        os.close(lock)
