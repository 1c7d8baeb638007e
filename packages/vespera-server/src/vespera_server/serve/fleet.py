"""Responsible for the agents of one server: places, starts, turns, ends.

It runs on the server's event loop, over one ``Supervisor`` per backend. Nothing here blocks, and
whoever waits does so for a given time: the work goes on, and its result is kept. It knows nothing
of MCP.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import vespera_agent_spawner as spawner
from vespera_agent_spawner import (
    Agent,
    AgentBusy,
    AgentError,
    AgentExists,
    AgentFailed,
    AgentNotFound,
    Event,
    ExitStatus,
    LimitExceeded,
    RunResult,
    Supervisor,
    SupervisorClosed,
    SupervisorConfig,
)
from vespera_agent_spawner._description import never_started
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._registrar import note_transcript
from vespera_server.serve.event_log import EventLog
from vespera_server.serve.member import Member
from vespera_server.serve.policy import Policy, Wish
from vespera_server.serve.purse import Purse
from vespera_server.serve.transcript import Transcript
from vespera_server.words import counted

__all__ = ["Fleet", "Watch"]

T = TypeVar("T")
Watch = Callable[[Member], Awaitable[None]]
"""Called now and then while somebody waits for an agent."""

_ENDED_KEPT = 256
_WATCH_EVERY = 0.5
_log = logger_for("server.fleet")


class Fleet:
    """Agents within the operator's limits. Use it as ``async with``; leaving ends every agent."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._options = policy.options
        self._members: dict[str, Member] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._stack = AsyncExitStack()
        self._background: set[asyncio.Task[Any]] = set()
        self._places = asyncio.Condition()
        self._purse = Purse(policy.options, self.members)
        self._closing = False

    async def __aenter__(self) -> Self:
        if self._options.idle is not None:
            self._in_background(self._end_idle(self._options.idle))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        for member in self.members():
            member.left = True
        # The supervisors first: their agents' ends finish what runs in the background.
        await self._stack.aclose()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for member in self._members.values():
            if member.transcript is not None:
                await member.transcript.close()

    # -- looking ---------------------------------------------------------------------------

    def members(self) -> list[Member]:
        """Those that live or are starting."""
        return [member for member in self._members.values() if not member.is_over]

    def member(self, agent_id: str) -> Member:
        """One agent, also one of the last that ended. Raises ``AgentNotFound``."""
        member = self._members.get(agent_id)
        if member is None:
            raise AgentNotFound(f"no agent '{agent_id[:80]}' on this server")
        member.touch()
        return member

    @property
    def spent(self) -> float:
        """US dollars that all agents have cost."""
        return self._purse.spent

    # -- sessions --------------------------------------------------------------------------

    async def spawn(
        self, wish: Wish, *, wait: float, backend: str, owner: str | None = None
    ) -> Member:
        """Start a session; returns when it is ready, or after ``wait`` seconds if it is not yet.

        Raises what the policy refuses, ``LimitExceeded``, ``BudgetExceeded``, ``AgentExists`` and
        what a start raises. Cancelling ends the start.
        """
        self._refuse_known(wish.agent_id)
        if len(self.members()) >= self._options.max_agents:
            alive = counted(self._options.max_agents, "agent")
            raise LimitExceeded(f"{alive} alive, which is all that this server takes")
        share = self._purse.share()
        member = self._enlist(wish, backend, owner)
        self._reserve(member, share)
        starting = member.starting = self._in_background(self._start(member))
        with self._owned(member):
            await asyncio.wait({starting}, timeout=wait)
        if starting.cancelled():
            raise AgentFailed(f"agent '{wish.agent_id}' was ended while it started")
        if starting.done():
            await starting
        return member

    async def execute(
        self, agent_id: str, prompt: str, *, wait: float, watch: Watch | None = None
    ) -> Member:
        """One turn; returns when it is over, or after ``wait`` seconds while it goes on.

        Raises ``AgentNotFound``, ``AgentBusy``, ``AgentFailed``, ``BudgetExceeded``. Cancelling
        interrupts the turn.
        """
        member = self.member(agent_id)
        if member.is_task:
            raise AgentFailed(f"agent '{agent_id}' works on a task and takes no prompts")
        if member.in_turn:
            raise AgentBusy(f"agent '{agent_id}' is in a turn")
        if member.is_over:
            raise AgentFailed(f"agent '{agent_id}' has ended")
        if member.agent is None:
            raise AgentBusy(f"agent '{agent_id}' is still starting")
        self._purse.refuse_overspending()
        member.turn_began = member.log.cursor
        if member.transcript is not None:
            member.transcript.told(prompt)
        turn = member.turn = self._in_background(self._turn(member, member.agent, prompt))
        try:
            await self.wait(member, turn, wait, watch)
        except asyncio.CancelledError:
            # Not awaited: a cancelled scope cancels every further await.
            if not turn.done():
                self._in_background(member.agent.interrupt())
            raise
        if turn.done():
            await turn
        return member

    async def interrupt(self, agent_id: str) -> Member:
        """Ask the agent to stop its turn."""
        member = self.member(agent_id)
        if member.agent is not None and not member.is_over:
            await member.agent.interrupt()
        return member

    async def shutdown(self, agent_id: str, grace: float) -> tuple[Member, ExitStatus]:
        """End an agent's tree; a second call says again how it ended."""
        member = self.member(agent_id)
        if member.starting is None and member.turn is not None:
            member.turn.cancel()
            await asyncio.wait({member.turn})
        await self._end_start(member)
        if member.agent is not None and not member.is_over:
            ending = self._in_background(member.agent.shutdown(grace))
            await asyncio.wait([ending])
            self._ended(member, ending.result())
        return member, member.exit or ExitStatus(None, None, "spawn", "it never started")

    def end_owned_by(self, owner: str) -> None:
        """A client session is over: its agents end."""
        for member in self.members():
            if member.owner == owner:
                _log.info("agent '%s' ends with the session of its client", member.agent_id)
                member.left = True
                self._in_background(self._end(member.agent_id))

    # -- tasks -----------------------------------------------------------------------------

    def enlist_task(self, wish: Wish, *, owner: str | None = None) -> Member:
        """Note an agent with a prompt; ``run_task`` runs it."""
        self._refuse_known(wish.agent_id)
        waiting = sum(member.is_task for member in self.members())
        if waiting >= self._options.max_tasks:
            tasks = counted(waiting, "task")
            raise LimitExceeded(f"{tasks} waiting or at work, which is all that this server takes")
        return self._enlist(wish, self._options.backend, owner)

    def withdraw(self, member: Member) -> None:
        """Forget an enlisted task that nobody began."""
        self._fail(member, AgentFailed("its batch was refused"))

    def begin_task(
        self, member: Member, work: Coroutine[Any, Any, RunResult] | None = None
    ) -> asyncio.Task[RunResult]:
        """``run_task`` (or ``work``, which calls it) as a task of the fleet's own."""
        member.turn = self._in_background(self.run_task(member) if work is None else work)
        return member.turn

    async def gone(self, member: Member) -> None:
        """Ends what is left of a task that was cancelled, and waits for that end."""
        await self._abandon(member)
        if member.agent is not None:
            self._ended(member, (await member.agent.result()).exit)

    async def run_task(self, member: Member) -> RunResult:
        """Run an enlisted agent to its end, once there is a place. Cancelling ends it."""
        try:
            async with self._places:
                await self._places.wait_for(self._has_place)
                self._reserve(member, self._purse.share())
                member.starting = self._in_background(self._start(member))
            with self._owned(member):
                await asyncio.wait([member.starting])
                agent = member.starting.result()
                member.result = await agent.result()
        except asyncio.CancelledError:
            if member.agent is None:
                self._fail(member, AgentFailed("it was cancelled before it began"))
            raise
        except (AgentError, OSError) as error:
            self._fail(member, error)
            return never_started(error, member.config, member.agent_id, member.backend, "")
        self._ended(member, member.result.exit)
        return member.result

    def _has_place(self) -> bool:
        started = sum(not m.is_task or m.starting is not None for m in self.members())
        return started < self._options.max_agents

    # -- parts -----------------------------------------------------------------------------

    def _refuse_known(self, agent_id: str) -> None:
        known = self._members.get(agent_id)
        if known is not None and not known.is_over:
            raise AgentExists(f"agent '{agent_id[:80]}' lives already")

    def _enlist(self, wish: Wish, backend: str, owner: str | None) -> Member:
        member = Member(
            config=self.policy.agent(wish),
            backend=spawner.backend() if backend == "auto" else backend,
            owner=owner,
            log=EventLog(self.policy.redactor),
        )
        self._members.pop(wish.agent_id, None)
        self._members[wish.agent_id] = member
        return member

    def _reserve(self, member: Member, share: float | None) -> None:
        member.reserved = share
        member.config = self.policy.with_budget(member.config, share)

    async def _start(self, member: Member) -> Agent:
        try:
            if member.prepare is not None:
                self._refuse_late_starts()
                await member.prepare()
            supervisor = await self._supervisor(member.backend)
            agent = member.agent = await supervisor.spawn(member.config)
        except asyncio.CancelledError:
            self._fail(member, AgentFailed("its start was cancelled"))
            raise
        except Exception as error:
            self._fail(member, error)
            raise
        path = self.policy.transcript(member.agent_id)
        if path is not None:
            note_transcript(agent, str(path))
            member.transcript = Transcript(
                path, self.policy.redactor, member.agent_id, agent.session_id
            )
            if member.config.prompt is not None:
                member.transcript.told(member.config.prompt)
        # The iterator at once: what is said before it exists would be lost.
        self._in_background(self._listen(member, agent, aiter(agent)))
        return agent

    def _refuse_late_starts(self) -> None:
        if self._closing:
            raise SupervisorClosed("the server is ending and starts nothing")

    async def _supervisor(self, backend: str) -> Supervisor:
        self._refuse_late_starts()
        if backend not in self._supervisors:
            config = SupervisorConfig(
                backend=backend, max_agents=self._options.max_agents, register=True
            )
            supervisor = self._supervisors[backend] = Supervisor(config)
            await self._stack.enter_async_context(supervisor)
        return self._supervisors[backend]

    async def _listen(self, member: Member, agent: Agent, events: AsyncIterator[Event]) -> None:
        async for event in events:
            member.log.add(event)
            if member.transcript is not None:
                member.transcript.said(event)
        result = await agent.result()
        self._ended(member, result.exit)

    async def _turn(self, member: Member, agent: Agent, prompt: str) -> RunResult:
        member.result = None
        try:
            member.result = await agent.run(prompt)
        except AgentError as error:
            member.log.note(str(error), is_error=True)
            raise
        finally:
            member.touch()
        return member.result

    def _ended(self, member: Member, status: ExitStatus | None) -> None:
        if member.is_over:
            return
        member.exit = status or ExitStatus(None, None, "unknown", "gone")
        member.log.note(f"ended: {member.exit.reason}")
        self._purse.close_account(member)
        self._forget_oldest()

    def _fail(self, member: Member, error: Exception) -> None:
        if member.is_over:
            return
        member.failure = error
        member.log.note(str(error), is_error=True)
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        over = [member for member in self._members.values() if member.is_over]
        for member in over[: max(0, len(over) - _ENDED_KEPT)]:
            del self._members[member.agent_id]
        self._in_background(self._tell_of_places())

    async def _tell_of_places(self) -> None:
        async with self._places:
            self._places.notify_all()

    async def _end(self, agent_id: str, grace: float = 5.0) -> None:
        with contextlib.suppress(AgentError, OSError):
            await self.shutdown(agent_id, grace)

    async def _end_idle(self, limit: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(limit / 4, 30.0))
            for member in self.members():
                busy = member.in_turn or member.is_task or member.agent is None
                if not busy and loop.time() - member.touched > limit:
                    member.log.note(f"nobody asked anything for {limit:g} s")
                    _log.info("agent '%s' was idle for %g s: it ends", member.agent_id, limit)
                    self._in_background(self._end(member.agent_id))

    async def wait(
        self, member: Member, work: asyncio.Task[Any], wait: float, watch: Watch | None
    ) -> None:
        """Until the work is over, or for so many seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        seen = -1
        while not work.done() and (left := deadline - loop.time()) > 0:
            await asyncio.wait({work}, timeout=min(left, _WATCH_EVERY))
            if watch is not None and member.log.cursor != seen and not work.done():
                seen = member.log.cursor
                await watch(member)

    @contextlib.contextmanager
    def _owned(self, member: Member) -> Iterator[None]:
        """Whoever is cancelled in here takes the agent along."""
        try:
            yield
        except asyncio.CancelledError:
            # Not awaited: a cancelled scope cancels every further await.
            self._in_background(self._abandon(member))
            raise

    async def _abandon(self, member: Member) -> None:
        await self._end_start(member)
        # Not `is_over`: a task that is cancelled while it starts fails before its agent is gone.
        if member.agent is not None and not member.agent.state.is_over:
            await member.agent.cancel()

    async def _end_start(self, member: Member) -> None:
        starting = member.starting
        if starting is None or starting.done():
            return
        starting.cancel()
        await asyncio.wait({starting})

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task of the fleet's own: no caller's end is its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        # Whoever waits for it learns its failure; nobody else need hear of it.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
