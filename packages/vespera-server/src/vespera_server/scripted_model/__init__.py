"""A loopback stand-in for the Messages API that answers by script.

An agent CLI needs a model to decide what to do next. Point `ANTHROPIC_BASE_URL` at this server
and the decisions come from a script, while everything else stays real: the CLI, its tools, the
shells that it starts.

```python
from vespera_server.scripted_model import Failure, Reply, Script, ScriptedModel, Text, ToolUse

scripts = {
    "count": Script(
        Reply(ToolUse("Bash", {"command": "ls | wc -l"})),
        lambda request: Reply(Text(f"There are {request.last_tool_result} files.")),
    ),
    "retry": Script(Failure(529), Reply(Text("second try"))),
}
with ScriptedModel(scripts) as model:
    environment = {"ANTHROPIC_BASE_URL": model.base_url, "ANTHROPIC_API_KEY": "any"}
    ...  # run the CLI with the prompt "[[script:count]] How many files are here?"
    assert [record.answer for record in model.requests] == ["200 tool_use", "200 end_turn"]
```

How a script is chosen, first match wins:

1. `choose(request)`, when given, returns a name or None;
2. `[[script:NAME]]` in the first user prompt of the conversation;
3. the request's model name, when `scripts` has it as `model:NAME`;
4. the script called `default`; without one the answer is HTTP 400 that says what is missing.

Each conversation (session id, else its first prompt) walks its script on its own, one step per
request; a request that the client repeats after an error gets the next step. Requests without
tools are the CLI's own errands (titles, warm-up): they get `errand_reply` and use up no step.
"""

from __future__ import annotations

from vespera_server.scripted_model.request import ModelRequest
from vespera_server.scripted_model.request_log import RequestRecord
from vespera_server.scripted_model.scripts import Script
from vespera_server.scripted_model.server import ScriptedModel
from vespera_server.scripted_model.steps import (
    Block,
    Failure,
    Reply,
    Stall,
    Step,
    Text,
    ToolUse,
)

__all__ = [
    "Block",
    "Failure",
    "ModelRequest",
    "Reply",
    "RequestRecord",
    "Script",
    "ScriptedModel",
    "Stall",
    "Step",
    "Text",
    "ToolUse",
]
