"""`vespera kill` as the user calls it: one agent's tree ends, nobody else's."""

from __future__ import annotations

import json

from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.screen import console_for
from vespera_server.watch.finding import find, living
from vespera_server.watch.trees import end_tree

__all__ = ["kill"]

_WORDS = {
    "terminate": "ended after SIGTERM",
    "kill": "ended by force",
    "itself": "had ended already",
}


def kill(agent_id: str, *, pid: int | None, grace: str, force: bool, as_json: bool) -> int:
    """0: nothing of it is left; 1: somebody outlived even force; 2: it was not touched."""
    try:
        seconds = 0.0 if force else rules.duration("--grace", grace)
        host, agent = find(agent_id, living(), pid)
        ended = end_tree(host, agent, seconds)
    except (AgentError, OSError, RuntimeError) as error:
        console_for(stderr=True).print(
            f"vespera kill: {error}", style="red", markup=False, soft_wrap=True
        )
        return 2
    code = 1 if ended.survivors else 0
    if as_json:
        answer = {
            "agent_id": agent_id,
            "pid": agent.leader.pid if agent.leader else None,
            "host_pid": host.pid,
            "ended": not ended.survivors,
            "by": ended.by,
            "seconds": round(ended.seconds, 3),
            "survivors": list(ended.survivors),
        }
        print(json.dumps(answer, ensure_ascii=False))
        return code
    line = f"agent '{agent_id}' of host {host.pid} {_WORDS[ended.by]} ({ended.seconds:.1f} s)"
    if ended.survivors:
        line += f"; still there: {', '.join(ended.survivors)}"
    console_for().print(line, markup=False, soft_wrap=True)
    return code
