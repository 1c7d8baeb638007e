"""Responsible for the tools that run batches of tasks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from pydantic import BaseModel, ConfigDict, Field

from vespera_server.problems import Refused
from vespera_server.serve.agent_tools import AgentId, Prompt, WaitSeconds, watcher
from vespera_server.serve.answers import Answer
from vespera_server.serve.batches import Batch, Batches, BatchRow, TaskRow
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.policy import AGENT_ID, Wish
from vespera_server.serve.tool import StructuredServer, add_tool
from vespera_server.words import counted

__all__ = ["add_task_tools"]

_LISTED = 50


class Task(BaseModel):
    """One task: a prompt for an agent of its own."""

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    agent_id: AgentId | None = Field(default=None, description="Default: a generated name.")
    command: str = Field(default="claude", description="The program, by the operator's name.")
    timeout_seconds: float = Field(default=300, gt=0, description="Seconds for the whole turn.")
    working_directory: str | None = Field(default=None, description="Default: the first root.")
    model: str | None = Field(default=None, description="Default: the CLI's own.")
    system_prompt: str | None = Field(default=None, max_length=200_000)
    allowed_tools: list[str] | None = Field(default=None, max_length=100)
    permission_mode: str | None = None
    max_turns: int | None = Field(default=None, ge=1, le=1_000_000)


class TasksAnswer(Answer):
    """A batch; `state` is "running" until every task has ended."""

    batch_id: str | None = Field(default=None, description="Give it to task_status.")
    state: str | None = Field(
        default=None,
        description="'running', 'ended', or 'interrupted': some tasks did not end, and nobody "
        "works on them.",
    )
    completed: int | None = None
    failed: int | None = None
    interrupted: int | None = Field(
        default=None, description="Tasks that run_tasks with batch_id and resume goes on with."
    )
    cost_usd: float | None = Field(default=None, description="US dollars of all tasks so far.")
    tasks: list[TaskRow] = Field(default_factory=list)
    cut: bool | None = Field(
        default=None, description="Whether results were left out; ask for one with agent_id."
    )
    batches: list[BatchRow] | None = Field(
        default=None, description="The newest first, of task_status without batch_id."
    )


def add_task_tools(
    server: StructuredServer,
    fleet_of: Callable[[Context[Any, Any]], Fleet],
    batches_of: Callable[[Context[Any, Any]], Batches],
    owner_of: Callable[[Context[Any, Any], Fleet], str | None],
) -> None:
    """Register them."""

    async def run_tasks(
        ctx: Context[Any, Any],
        tasks: Annotated[
            list[Task],
            Field(
                default_factory=list,
                description="What is to be done, 1 to 200, each by an agent of its own, several at "
                "once. Empty with resume.",
                max_length=200,
                examples=[[{"prompt": "Summarise README.md"}, {"prompt": "Count the tests"}]],
            ),
        ],
        batch_id: Annotated[
            str | None,
            Field(
                description="With resume: the batch to go on with. Default: a new one.",
                max_length=64,
                examples=["batch-1f9c0a2b7d3e4f50"],
            ),
        ] = None,
        resume: Annotated[
            bool,
            Field(
                description="Go on with the interrupted tasks of batch_id, each in its session. "
                "Needs a server with a task database (--task-database)."
            ),
        ] = False,
        wait_seconds: WaitSeconds = 45,
    ) -> TasksAnswer:
        """Run tasks, each by a new agent, and return their results.

        If they are not all over after `wait_seconds`, `state` is "running": follow them with
        task_status. Cancelling the call ends them. On a server with a task database, tasks that
        the end of a server or caller cut off are "interrupted", not lost: {"batch_id": "batch-…",
        "resume": true} goes on with them, within the limits that the server has now.
        """
        fleet, batches = fleet_of(ctx), batches_of(ctx)
        owner = owner_of(ctx, fleet)
        if resume:
            batch = await batches.resume(_resumed(tasks, batch_id), owner)
        else:
            batch = await batches.start(_wishes(tasks, batch_id), owner)
        try:
            await _wait(ctx, batch, wait_seconds)
        except asyncio.CancelledError:
            batch.cancel()
            raise
        return await _answer(batch, fleet, None)

    async def task_status(
        ctx: Context[Any, Any],
        batch_id: Annotated[
            str | None,
            Field(
                description="As run_tasks answered it. Default: none, and the newest 50 batches "
                "are listed.",
                max_length=64,
                examples=["batch-1f9c0a2b7d3e4f50"],
            ),
        ] = None,
        agent_id: Annotated[
            str | None, Field(description="Only the task of this agent.", pattern=AGENT_ID)
        ] = None,
        wait_seconds: WaitSeconds = 0,
    ) -> TasksAnswer:
        """How a batch of tasks is going; with `agent_id` only that task.

        With `wait_seconds` it waits until all are over, or for that long.
        """
        batches = batches_of(ctx)
        if batch_id is None:
            return TasksAnswer(success=True, batches=await batches.newest(_LISTED))
        batch = await batches.find(batch_id)
        await _wait(ctx, batch, wait_seconds)
        return await _answer(batch, fleet_of(ctx), agent_id)

    add_tool(server, run_tasks, TasksAnswer, server.redactor, title="Run tasks", open_world=True)
    add_tool(
        server, task_status, TasksAnswer, server.redactor, title="A batch's status", read_only=True
    )


def _wishes(tasks: list[Task], batch_id: str | None) -> list[Wish]:
    if batch_id is not None:
        raise Refused(
            "invalid_arguments",
            "run_tasks: batch_id names a batch to go on with, and resume is false",
            "leave batch_id out to begin a batch, or set resume to true and leave tasks out",
        )
    if not tasks:
        raise Refused(
            "invalid_arguments", "run_tasks: tasks is empty", 'give tasks such as [{"prompt": "…"}]'
        )
    return [_wish(task) for task in tasks]


def _resumed(tasks: list[Task], batch_id: str | None) -> str:
    if tasks or batch_id is None:
        raise Refused(
            "invalid_arguments",
            "run_tasks: resume goes on with the tasks of batch_id and takes no others",
            "give batch_id and no tasks",
        )
    return batch_id


def _wish(task: Task) -> Wish:
    given = task.model_dump()
    given["agent_id"] = task.agent_id or f"task-{secrets.token_hex(4)}"
    return Wish(**given)


async def _wait(ctx: Context[Any, Any], batch: Batch, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    tell, seen = watcher(ctx), -1
    while not batch.is_over and (left := deadline - loop.time()) > 0:
        await batch.wait(min(left, 0.5))
        members = batch.members
        total = sum(member.log.cursor for member in members)
        if members and total != seen and not batch.is_over:
            seen = total
            await tell(max(members, key=lambda member: member.log.cursor))


async def _answer(batch: Batch, fleet: Fleet, agent_id: str | None) -> TasksAnswer:
    rows = await batch.rows()
    shown = [row for row in rows if agent_id in (None, row.agent_id)]
    interrupted = sum(row.state == "interrupted" for row in rows)
    ended = sum(row.state == "ended" for row in rows)
    answer = TasksAnswer(
        success=True,
        batch_id=batch.batch_id,
        backend=rows[0].backend,
        state="running",
        completed=sum(row.success is True for row in rows),
        failed=sum(row.success is False for row in rows),
        cost_usd=sum(row.cost_usd or 0.0 for row in rows),
        tasks=shown,
    )
    if ended + interrupted == len(rows):
        answer.state = "interrupted" if interrupted else "ended"
    if interrupted:
        answer.interrupted = interrupted
        answer.message = (
            f"{interrupted} of {counted(len(rows), 'task')} did not end; go on with run_tasks: "
            f"batch_id '{batch.batch_id}', resume true"
        )
    room = fleet.policy.options.largest_answer
    for row in shown:
        room -= len(row.result or "") + 300
        if room < 0 and row.result and len(shown) > 1:
            row.result, answer.cut = None, True
    return answer
