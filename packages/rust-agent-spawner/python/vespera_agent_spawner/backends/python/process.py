"""Responsible for one child process: its start, its three pipes, the news of its exit.

It knows nothing of frames or turns. Two things differ from ``asyncio.subprocess`` on purpose:

* Exit is learnt from a pidfd (or a waiting thread), never from ``Process.wait()``, which waits
  for the end of the pipes too: a grandchild that holds one would keep us waiting for ever.
* The zombie is kept until the tree has been swept. A number that was not reaped cannot be given
  to a stranger, so the process group can be signalled without a race.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping

from vespera_agent_spawner._patience import Deadline
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends.python.limits import apply
from vespera_agent_spawner.backends.python.proc import start_clock, started
from vespera_agent_spawner.backends.python.transcript import Transcript
from vespera_agent_spawner.config import Limits
from vespera_agent_spawner.errors import ProgramNotFound, SpawnError

__all__ = ["ChildProcess"]

# What a pipe holds; a larger buffer would be mapped and unmapped by each read.
_READ_SIZE = 64 * 1024
_WRITE_SIZE = 64 * 1024
_DRAIN_LIMIT = 256 * 1024 * 1024


class ChildProcess:
    """A started program; callbacks run on the loop. Its start is the only blocking part.

    Who is not ``fed`` has an empty stdin.
    """

    def __init__(
        self, launch: Launch, tag: tuple[str, str], limits: Limits | None, *, fed: bool = True
    ) -> None:
        self._stdin: socket.socket | None = None
        self._stdout: int | None = None
        self._stderr: int | None = None
        self._pidfd: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._write_lock = asyncio.Lock()
        self._forgotten = False
        #: What it and those that it reaped used; None before it is reaped, or where its host did.
        self.cpu_seconds: float | None = None
        self._on_stdout: Callable[[bytes], None] = _told_nobody
        self._on_stderr: Callable[[bytes], None] = _told_nobody
        self._on_stdout_end: Callable[[], None] = _nothing
        self.transcript: Transcript | None = None
        try:
            self._start(launch, tag, fed)
            if limits is not None:
                self._limit(launch, limits)
        except BaseException as error:
            self._close()
            if isinstance(error, OSError) and not isinstance(error, SpawnError):
                raise _spawn_error(launch, error) from error
            raise

    def _start(self, launch: Launch, tag: tuple[str, str], fed: bool) -> None:
        stdin = subprocess.DEVNULL
        theirs: list[int] = []
        try:
            self._stdout, stdout = os.pipe()
            theirs.append(stdout)
            self._stderr, stderr = os.pipe()
            theirs.append(stderr)
            if fed:
                # A socket, not a pipe, for stdin: shutdown() ends it even where a forked worker
                # of the host has inherited our end.
                self._stdin, end = socket.socketpair()
                self._stdin.setblocking(False)
                stdin = end.detach()
                theirs.append(stdin)
            if launch.transcript is not None:
                self.transcript = Transcript(launch.transcript, launch.agent_id)
            now = start_clock()
            self._popen = subprocess.Popen(
                launch.argv,
                executable=launch.program,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=launch.working_directory,
                env=_tagged(launch.environment, tag),
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.pid = self._popen.pid
        self.born = started(self.pid, now)
        os.set_blocking(self._stdout, False)
        os.set_blocking(self._stderr, False)

    def _limit(self, launch: Launch, limits: Limits) -> None:
        try:
            apply(self.pid, limits)
        except ProcessLookupError:
            # It has ended already.
            return
        except (OSError, ValueError) as error:
            self.signal_group(signal.SIGKILL)
            self._popen.wait()
            raise SpawnError(
                f"agent '{launch.agent_id}': its limits were refused: {error}; a negative nice "
                "and more than the host's own limits need privileges",
                errno=getattr(error, "errno", None),
                program=launch.program,
                stage="limits",
                context={"agent_id": launch.agent_id},
            ) from error

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_stdout: Callable[[bytes], None],
        on_stderr: Callable[[bytes], None],
        on_stdout_end: Callable[[], None],
        on_exit: Callable[[], None],
    ) -> None:
        """Begin to read and to watch, on the loop's own thread."""
        self._loop = loop
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr
        self._on_stdout_end = on_stdout_end
        assert self._stdout is not None
        assert self._stderr is not None
        loop.add_reader(self._stdout, self._readable_stdout)
        loop.add_reader(self._stderr, self._readable_stderr)
        self._watch_exit(loop, on_exit)

    # -- writing ---------------------------------------------------------------------------

    async def write(self, data: bytes, patience: float | None = None) -> None:
        """Send all of the bytes; raises ``OSError`` when the other end is closed, ``TimeoutError``
        when it takes none for ``patience`` seconds."""
        async with self._write_lock:
            if self._stdin is None or self._loop is None:
                raise BrokenPipeError(errno.EPIPE, "stdin is closed")
            if self.transcript is not None:
                self.transcript.host(data)
            try:
                sent = self._stdin.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            left = memoryview(data)[sent:]
            try:
                for start in range(0, len(left), _WRITE_SIZE):
                    async with Deadline(patience):
                        piece = left[start : start + _WRITE_SIZE]
                        await self._loop.sock_sendall(self._stdin, piece)
            except (asyncio.CancelledError, TimeoutError):
                # Half a line may be sent: whatever followed would be read as its other half.
                self.end_input()
                raise

    async def end_input_behind(self) -> None:
        """``end_input`` once what is being written has been."""
        async with self._write_lock:
            self.end_input()

    @property
    def transcript_lost(self) -> str | None:
        """Why the transcript is not whole; None while it is, or when there is none."""
        return None if self.transcript is None else self.transcript.lost

    def end_input(self) -> None:
        """End of file on the agent's stdin; what was sent before still arrives."""
        if self._stdin is not None:
            with contextlib.suppress(OSError):
                self._stdin.shutdown(socket.SHUT_WR)

    # -- reading ---------------------------------------------------------------------------

    def _readable_stdout(self) -> None:
        if self._stdout is None:
            return
        data = _read_some(self._stdout)
        if data is None:
            return
        if data:
            self._on_stdout(data)
            return
        self._close_stdout()
        self._on_stdout_end()

    def _readable_stderr(self) -> None:
        if self._stderr is None:
            return
        data = _read_some(self._stderr)
        if data:
            self._on_stderr(data)
        elif data is not None:
            self._close_stderr()

    def pause_reading(self, pause: bool) -> None:
        """Stop or go on reading stdout; the agent waits in its pipe meanwhile."""
        if self._stdout is None or self._loop is None:
            return
        if pause:
            self._loop.remove_reader(self._stdout)
        else:
            self._loop.add_reader(self._stdout, self._readable_stdout)

    def drain(self) -> None:
        """Read what the dead leader left in the pipes, without waiting for their end.

        Everything it wrote is in the pipe by now; a grandchild may hold the pipe open, so
        neither end of file alone nor exit alone says "finished".
        """
        for descriptor, deliver in (
            (self._stdout, self._on_stdout),
            (self._stderr, self._on_stderr),
        ):
            left = _DRAIN_LIMIT
            while descriptor is not None and left > 0:
                data = _read_some(descriptor)
                if not data:
                    break
                left -= len(data)
                deliver(data)

    def _close_stdout(self) -> None:
        descriptor, self._stdout = self._stdout, None
        self._close_watched(descriptor)

    def _close_stderr(self) -> None:
        descriptor, self._stderr = self._stderr, None
        self._close_watched(descriptor)

    def _close_watched(self, descriptor: int | None) -> None:
        if descriptor is None:
            return
        # A closed loop has let go of its readers itself.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
        os.close(descriptor)

    # -- exit ------------------------------------------------------------------------------

    def _watch_exit(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # macOS, kernels before 5.3, seccomp filters that do not know the call.
            self._watch_exit_in_thread(loop, on_exit)
            return

        def readable() -> None:
            if self._pidfd is not None:
                self._close_pidfd()
                on_exit()

        loop.add_reader(self._pidfd, readable)

    def _watch_exit_in_thread(
        self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[], None]
    ) -> None:
        def wait() -> None:
            # ECHILD: the host reaped it (waitpid(-1)) or ignores SIGCHLD; it is gone either way.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(on_exit)

        threading.Thread(target=wait, name=f"vespera-wait-{self.pid}", daemon=True).start()

    def has_exited(self) -> bool:
        """Whether it is dead, reaped or not."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return found is not None

    def peek_exit(self) -> tuple[int | None, int | None]:
        """Exit code and signal of the zombie, which stays; (None, None) if the host reaped it."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return None, None
        if found is None:
            return None, None
        if found.si_code == os.CLD_EXITED:
            return found.si_status, None
        return None, found.si_status

    def signal_group(self, number: int) -> None:
        """Signal the process group; only while the leader is not reaped."""
        if self._forgotten:
            return
        # ESRCH: empty group. EPERM: a group of zombies only (macOS), or a changed uid.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> None:
        """Let the zombie go and close everything; the pid means nothing after this."""
        try:
            _, status, used = os.wait4(self.pid, os.WNOHANG)
            self.cpu_seconds = used.ru_utime + used.ru_stime
            self._popen.returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            self._popen.returncode = -signal.SIGKILL
        self._close()

    def _close(self) -> None:
        # Whom they tell holds us: without this only the collector would let go of both.
        self._on_stdout = self._on_stderr = _told_nobody
        self._on_stdout_end = _nothing
        self._close_stdout()
        self._close_stderr()
        self._close_pidfd()
        if self.transcript is not None:
            self.transcript.close()
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None

    def _close_pidfd(self) -> None:
        descriptor, self._pidfd = self._pidfd, None
        self._close_watched(descriptor)

    def forget_in_fork(self) -> None:
        """In a forked child: close our copies of the descriptors and touch nothing else.

        The loop's epoll set is shared with the parent, so nothing is unregistered here.
        """
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None
        for descriptor in (self._stdout, self._stderr, self._pidfd):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._stdout = self._stderr = self._pidfd = None
        self._forgotten = True
        # The parent's child is not ours: no ResourceWarning, no waitpid from Popen.__del__.
        self._popen.returncode = 0


def _told_nobody(data: bytes) -> None:
    """Before it is watched, and after its end."""


def _nothing() -> None:
    """The same."""


# Agents share their environment, which nobody changes, so it is encoded once.
_encoded: tuple[Mapping[str, str], dict[bytes, bytes]] = ({}, {})


def _tagged(environment: Mapping[str, str], tag: tuple[str, str]) -> dict[bytes, bytes]:
    """What the child gets: an agent's environment, and whose it is."""
    global _encoded
    last, encoded = _encoded
    if last is not environment:
        encoded = {os.fsencode(name): os.fsencode(environment[name]) for name in environment}
        _encoded = (environment, encoded)
    return {**encoded, os.fsencode(tag[0]): os.fsencode(tag[1])}


def _read_some(descriptor: int) -> bytes | None:
    """Bytes, ``b""`` at the end of the pipe, None when nothing is there now."""
    try:
        return os.read(descriptor, _READ_SIZE)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


def _spawn_error(launch: Launch, error: OSError) -> SpawnError:
    number = error.errno or 0
    # subprocess names the directory when chdir failed, the program when exec did.
    stage = "chdir" if error.filename == launch.working_directory else "exec"
    what = launch.working_directory if stage == "chdir" else launch.program
    remedy = {
        errno.EACCES: "check the permissions (and a noexec mount)",
        errno.ENOENT: "it may name an interpreter in its first line that does not exist",
        errno.ENOEXEC: "it is not a program of this machine and has no '#!' line",
        errno.E2BIG: "the arguments and the environment are too long together",
        errno.EMFILE: "the host has no file descriptor left: raise 'ulimit -n'",
        errno.EAGAIN: "the user has no process left: raise 'ulimit -u'",
    }.get(number, "see errno")
    kind = ProgramNotFound if number == errno.ENOENT and stage == "exec" else SpawnError
    return kind(
        f"agent '{launch.agent_id}': could not start {what}: {os.strerror(number)} "
        f"(errno {number}, {stage}); {remedy}",
        errno=number,
        program=launch.program,
        stage=stage,
        context={"agent_id": launch.agent_id, "remedy": remedy},
    )
