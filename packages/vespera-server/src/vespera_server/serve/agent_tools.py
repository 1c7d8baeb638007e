"""Responsible for the tools that start agents, speak with them, watch and end them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import Field

import vespera_agent_spawner as spawner
from vespera_agent_spawner.backends import rust_problem
from vespera_server.executor import describe
from vespera_server.problems import Problem
from vespera_server.serve.agent_answers import (
    EndAnswer,
    EventsAnswer,
    ListAnswer,
    MetricsAnswer,
    SpawnAnswer,
    StatusAnswer,
    TurnAnswer,
    fit,
    row_of,
    tell_turn,
)
from vespera_server.serve.fleet import Fleet, Watch
from vespera_server.serve.member import Member
from vespera_server.serve.policy import AGENT_ID, Wish
from vespera_server.serve.tool import StructuredServer, add_tool

__all__ = ["AgentId", "WaitSeconds", "add_agent_tools", "watcher"]

AgentId = Annotated[
    str,
    Field(
        description="The agent's name: 1 to 64 letters, digits, dots, dashes, underscores.",
        pattern=AGENT_ID,
        examples=["docs", "fix-login"],
    ),
]
WaitSeconds = Annotated[
    float,
    Field(
        description="Seconds to wait before answering with what there is; the work goes on. Stay "
        "below your own time limit.",
        ge=0,
        le=3600,
        examples=[45, 10, 0],
    ),
]
Prompt = Annotated[
    str,
    Field(
        description="What the agent is to do, in plain words.",
        min_length=1,
        max_length=1_000_000,
        examples=["Find out why test_login fails and fix it."],
    ),
]


def add_agent_tools(
    server: StructuredServer,
    fleet_of: Callable[[Context[Any, Any]], Fleet],
    owner_of: Callable[[Context[Any, Any], Fleet], str | None],
    backend: str,
) -> None:
    """Register them; ``backend`` is the operator's choice."""
    _add_spawn_tools(server, fleet_of, owner_of, backend)
    _add_turn_tools(server, fleet_of)
    _add_watch_tools(server, fleet_of)


def _add_spawn_tools(
    server: StructuredServer,
    fleet_of: Callable[[Context[Any, Any]], Fleet],
    owner_of: Callable[[Context[Any, Any], Fleet], str | None],
    backend: str,
) -> None:
    prefer = " Prefer spawn_claude_agent, which chooses the engine itself."
    offered = [("spawn_claude_agent", backend, "")]
    if backend != "python" and rust_problem() is None:
        offered.append(("spawn_claude_agent_rust", "rust", " On the Rust engine." + prefer))
    if backend != "rust":
        offered.append(("spawn_claude_agent_python", "python", " On the Python engine." + prefer))
    for name, engine, words in offered:
        tool = _spawn_tool(fleet_of, owner_of, engine)
        tool.__name__ = tool.__qualname__ = name
        first, _, rest = (tool.__doc__ or "").partition("\n")
        tool.__doc__ = f"{first}{words}\n{rest}"
        add_tool(
            server, tool, SpawnAnswer, server.redactor, title="Start an agent", open_world=True
        )


def _spawn_tool(
    fleet_of: Callable[[Context[Any, Any]], Fleet],
    owner_of: Callable[[Context[Any, Any], Fleet], str | None],
    engine: str,
) -> Callable[..., Awaitable[SpawnAnswer]]:
    async def spawn(
        ctx: Context[Any, Any],
        agent_id: AgentId,
        command: Annotated[
            str,
            Field(description="The program, by the name that the operator gave it."),
        ] = "claude",
        timeout_seconds: Annotated[
            float, Field(description="Seconds that each turn may last.", gt=0, examples=[300])
        ] = 300,
        working_directory: Annotated[
            str | None,
            Field(
                description="Where it works, beneath a root. Default: the first root.",
                examples=["backend"],
            ),
        ] = None,
        model: Annotated[
            str | None, Field(description="Default: the CLI's own.", examples=["haiku"])
        ] = None,
        system_prompt: Annotated[
            str | None,
            Field(description="Appended to the CLI's own system prompt.", max_length=200_000),
        ] = None,
        allowed_tools: Annotated[
            list[str] | None,
            Field(
                description="The CLI's tools that it may use unasked. Default: all that the "
                "operator allows.",
                max_length=100,
                examples=[["Read", "Grep"]],
            ),
        ] = None,
        permission_mode: Annotated[
            str | None, Field(description="Default: 'default'.", examples=["plan", "acceptEdits"])
        ] = None,
        max_turns: Annotated[
            int | None, Field(description="Model turns within one prompt.", ge=1, le=1_000_000)
        ] = None,
        wait_seconds: WaitSeconds = 45,
    ) -> SpawnAnswer:
        """Start a Claude agent and return its session id once it is ready for prompts.

        It lives until shutdown_agent, until nobody asked it anything for the server's idle limit,
        or until the server ends. If it is not ready after `wait_seconds`, `state` is "starting".
        """
        fleet = fleet_of(ctx)
        wish = Wish(
            agent_id=agent_id,
            command=command,
            timeout_seconds=timeout_seconds,
            working_directory=working_directory,
            model=model,
            system_prompt=system_prompt,
            allowed_tools=allowed_tools,
            permission_mode=permission_mode,
            max_turns=max_turns,
        )
        owner = owner_of(ctx, fleet)
        member = await fleet.spawn(wish, wait=wait_seconds, backend=engine, owner=owner)
        ready = member.agent is not None
        return SpawnAnswer(
            success=True,
            backend=member.backend,
            agent_id=agent_id,
            session_id=member.session_id,
            state=str(member.state),
            message=f"agent '{agent_id}' is {'ready' if ready else 'still starting'}",
        )

    return spawn


def _add_turn_tools(
    server: StructuredServer, fleet_of: Callable[[Context[Any, Any]], Fleet]
) -> None:
    async def execute_agent(
        ctx: Context[Any, Any],
        agent_id: AgentId,
        prompt: Prompt,
        wait_seconds: WaitSeconds = 45,
    ) -> TurnAnswer:
        """Give an agent a prompt and return the result of its turn.

        If the turn is not over after `wait_seconds`, the answer is {"state": "running",
        "cursor": n}: follow it with agent_events. Cancelling the call interrupts the turn.
        """
        fleet = fleet_of(ctx)
        watch = watcher(ctx)
        member = await fleet.execute(agent_id, prompt, wait=wait_seconds, watch=watch)
        answer = tell_turn(member, TurnAnswer(success=True))
        if member.result is not None:
            told = describe(agent_id, member.result, fleet.policy.redactor)
            answer.success, answer.message = told["success"], told["message"]
            answer.error = Problem(**told["error"]) if "error" in told else None
        return answer

    async def agent_events(
        ctx: Context[Any, Any],
        agent_id: AgentId,
        cursor: Annotated[
            int, Field(description="From the last answer; 0 is the beginning.", ge=0)
        ] = 0,
        limit: Annotated[int, Field(description="At most so many events.", ge=1, le=1000)] = 100,
        wait_seconds: WaitSeconds = 0,
    ) -> EventsAnswer:
        """What an agent said and did since `cursor`, and the result of its turn if it is over.

        With `wait_seconds` it waits until the turn is over, or for that long.
        """
        fleet = fleet_of(ctx)
        member = fleet.member(agent_id)
        if member.in_turn and member.turn is not None and wait_seconds > 0:
            await fleet.wait(member, member.turn, wait_seconds, watcher(ctx))
        answer = EventsAnswer(success=True)
        tell_turn(member, answer)
        answer.events, answer.missed = member.log.since(cursor, limit)
        fit(answer, fleet.policy.options.largest_answer)
        answer.cursor = answer.events[-1].cursor if answer.events else member.log.cursor
        answer.more = answer.cursor < member.log.cursor
        return answer

    async def interrupt_agent(ctx: Context[Any, Any], agent_id: AgentId) -> StatusAnswer:
        """Ask an agent to stop its turn. The session lives on; the turn's outcome is cancelled."""
        member = await fleet_of(ctx).interrupt(agent_id)
        return StatusAnswer(success=True, backend=member.backend, agent=row_of(member))

    async def shutdown_agent(
        ctx: Context[Any, Any],
        agent_id: AgentId,
        grace_seconds: Annotated[
            float, Field(description="Seconds until its processes are killed.", ge=0, le=30)
        ] = 5,
    ) -> EndAnswer:
        """End an agent with every process that it started; a second call says again how."""
        member, status = await fleet_of(ctx).shutdown(agent_id, grace_seconds)
        return EndAnswer(
            success=True,
            backend=member.backend,
            agent_id=agent_id,
            exit_code=status.code,
            signal=status.signal,
            ended_by=status.by,
            reason=status.reason,
            message=f"agent '{agent_id}' has ended: {status.reason}",
        )

    def add(function: Any, answer: Any, title: str, **hints: bool) -> None:
        add_tool(server, function, answer, server.redactor, title=title, **hints)

    add(execute_agent, TurnAnswer, "Give an agent a prompt", open_world=True)
    add(agent_events, EventsAnswer, "What an agent did", read_only=True)
    add(interrupt_agent, StatusAnswer, "Interrupt an agent's turn")
    add(shutdown_agent, EndAnswer, "End an agent", destructive=True)


def _add_watch_tools(
    server: StructuredServer, fleet_of: Callable[[Context[Any, Any]], Fleet]
) -> None:
    async def list_agents(ctx: Context[Any, Any]) -> ListAnswer:
        """The agents of this server that live or are starting."""
        fleet = fleet_of(ctx)
        rows = [row_of(member) for member in fleet.members()]
        return ListAnswer(success=True, agents=rows, spent_usd=fleet.spent)

    async def agent_status(ctx: Context[Any, Any], agent_id: AgentId) -> StatusAnswer:
        """One agent's state, turns and cost; also of one of the last that ended."""
        member = fleet_of(ctx).member(agent_id)
        return StatusAnswer(success=True, backend=member.backend, agent=row_of(member))

    async def metrics(ctx: Context[Any, Any]) -> MetricsAnswer:
        """Counters and gauges of the server's process, named as Prometheus prints them."""
        found = spawner.metrics()
        for state in spawner.State:
            found[f'vespera_agents{{state="{state}"}}'] = 0.0
        for member in fleet_of(ctx).members():
            found[f'vespera_agents{{state="{member.state}"}}'] += 1.0
        return MetricsAnswer(success=True, metrics=found)

    def add(function: Any, answer: Any, title: str) -> None:
        add_tool(server, function, answer, server.redactor, title=title, read_only=True)

    add(list_agents, ListAnswer, "List agents")
    add(agent_status, StatusAnswer, "An agent's status")
    add(metrics, MetricsAnswer, "Metrics")


def watcher(ctx: Context[Any, Any]) -> Watch:
    """Tells the client what an agent does meanwhile, if it asked for progress."""

    async def watch(member: Member) -> None:
        # A client that reads nothing must not hold up the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await ctx.report_progress(
                    member.log.cursor, None, f"{member.agent_id}: {member.activity}"
                )

    return watch
