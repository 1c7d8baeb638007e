"""Tasks that survive a crash: a queue in one SQLite file, shared by any number of processes.

```python
from vespera_server.tasks import TaskQueue, TaskSpec

with TaskQueue("batch.db") as queue:
    lint = TaskSpec("lint", {"prompt": "…"})
    queue.add([lint, TaskSpec("fix", {"prompt": "…"}, needs=("lint",))])
    while claim := queue.claim():
        ...  # work in session claim.session_id, calling queue.heartbeat(claim) now and then
        queue.finish(claim, "completed", result="…")
```

``DurableExecutor(queue).run()`` is that loop with agents: each task's config is an ``AgentConfig``.
"""

from __future__ import annotations

from vespera_server.tasks.errors import (
    DependencyCycle,
    LeaseLost,
    NewerDatabase,
    TaskError,
    TaskExists,
    TaskNotFound,
    UnknownDependency,
)
from vespera_server.tasks.executor import DurableExecutor, Ending, Summary, TaskNews
from vespera_server.tasks.queue import TaskQueue
from vespera_server.tasks.records import Claim, Start, TaskEvent, TaskRecord, TaskSpec, TaskState

__all__ = [
    "Claim",
    "DependencyCycle",
    "DurableExecutor",
    "Ending",
    "LeaseLost",
    "NewerDatabase",
    "Start",
    "Summary",
    "TaskError",
    "TaskEvent",
    "TaskExists",
    "TaskNews",
    "TaskNotFound",
    "TaskQueue",
    "TaskRecord",
    "TaskSpec",
    "TaskState",
    "UnknownDependency",
]
