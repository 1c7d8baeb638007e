"""Responsible for a CLI session that goes on in one process at a time.

Two processes that append to one session destroy each other's conversation. Whoever writes into
one that others may know holds it first, by a file that names a process (pid and start time, so
that nobody is taken for a dead one): one that is resumed, one whose id the caller chose, one that
a conversation became by a reset. Whoever resumes one also looks at the command lines of the CLIs
that run. A fresh session, or a fork, has a uuid4 that nobody else knows before its process runs,
and needs no file.
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
from vespera_agent_spawner.errors import ConfigError

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

if os.name == "posix":
    import fcntl

__all__ = ["Hold", "held", "hold_reset", "holders", "take_hold"]

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

    def leave_to(self, pid: int | None) -> None:
        """It is held as long as that process lives, whoever forgets to release it."""
        if self._file is not None and pid is not None and start_time(pid) is not None:
            with contextlib.suppress(OSError):
                _write(self._file, pid)

    def __del__(self) -> None:
        self.release()


def take_hold(session_id: str, *, look: bool = True) -> Hold | None:
    """Hold a session before anybody writes into it; None when a living process has it.

    ``look``: also at the command lines of all processes, for who holds it without a file. Raises
    ``OSError`` where no private directory can be had.
    """
    if os.name != "posix":
        raise OSError("sessions are held on POSIX systems only")
    place = _place()
    file = place / quote(session_id, safe="")
    with _alone(place):
        if _is_held(file) or (look and holders(session_id)):
            return None
        _write(file, os.getpid())
    return Hold(file)


def _write(file: Path, pid: int) -> None:
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(f"{pid} {start_time(pid)}", encoding="ascii")
    fresh.replace(file)


def held(config: AgentConfig) -> tuple[AgentConfig, Hold | None]:
    """How to start an agent: alone in its session, or in a fork where another process has it.

    Raises ``ConfigError`` for a ``session_id`` that a living process has.
    """
    resumes = config.resume is not None and not config.fork_session
    session_id = config.resume if resumes else config.session_id
    if session_id is None:
        return config, None
    try:
        # Nobody but us has files for ids that were never used: a look at all processes would cost
        # each start of a task milliseconds.
        hold = take_hold(session_id, look=resumes)
    except OSError as error:
        _LOG.warning("whether session %s is in use is not known: %s", session_id, error)
        return config, None
    if hold is None and not resumes:
        raise ConfigError(
            f"session_id: {session_id} is in use by a living agent",
            field="session_id",
            value=session_id,
            remedy="choose another, or end that agent first",
        )
    if hold is None:
        _LOG.warning(
            "agent '%s': session %s is in use by another process, so it is forked",
            config.agent_id,
            session_id,
        )
        config = config._having({"fork_session": True, "session_id": None})
    return config, hold


def hold_reset(agent_id: str, session_id: str) -> Hold | None:
    """Hold what an agent's session has become: no command line tells of it."""
    try:
        return take_hold(session_id, look=False)
    except OSError as error:
        _LOG.warning("agent '%s': session %s cannot be held: %s", agent_id, session_id, error)
        return None


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
    # A person writes flag and id apart.
    pairs = {
        (b"--resume" if flag == b"-r" else flag) + b"=" + value
        for flag, value in itertools.pairwise(words)
        if flag in (b"-r", b"--resume", b"--session-id")
    }
    said = pairs.union(words)
    if b"--fork-session" in words:
        # It reads the session that it resumes, and writes into one of its own.
        said = {word for word in said if not word.startswith(b"--resume=")}
    return said


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
