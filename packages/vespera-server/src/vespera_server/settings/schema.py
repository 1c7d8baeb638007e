"""Responsible for the schemas that `vespera schema` prints: settings, task files, the engine's."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from vespera_agent_spawner import config_schema
from vespera_server.serve.options import HttpOptions, ServerOptions
from vespera_server.settings.model import RESERVED, Settings

__all__ = ["SCHEMAS", "schema_named"]

SCHEMAS = ("config", "tasks", "engine")


def schema_named(which: str) -> dict[str, Any]:
    """``config`` (vespera.toml), ``tasks`` (a file for `vespera run`) or ``engine`` (as both
    backends return it)."""
    if which == "engine":
        return config_schema()
    if which == "tasks":
        from vespera_server.run.model import TaskFile

        return _with_engine(TaskFile.model_json_schema())
    return _with_engine(Settings.model_json_schema())


def _with_engine(schema: dict[str, Any]) -> dict[str, Any]:
    """The engine's definitions, and every object that holds its settings pointing at them."""
    definitions = copy.deepcopy(config_schema()["$defs"])
    for name in RESERVED:
        definitions["AgentConfig"]["properties"].pop(name, None)
    own = schema.setdefault("$defs", {})
    if "TaskEntry" in own:
        # A task names its agent's settings beside its own fields.
        task = own["TaskEntry"]
        task["properties"] = definitions["AgentConfig"]["properties"] | task["properties"]
        task["additionalProperties"] = False
    own.update(definitions)
    properties = schema["properties"]
    references = {"supervisor": "SupervisorConfig", "agent": "AgentConfig"}
    if "serve" in properties:
        own |= {
            "ServerOptions": _fields_of(ServerOptions()),
            "HttpOptions": _fields_of(HttpOptions()),
        }
        own["ServerOptions"]["properties"]["http"] = {
            "anyOf": [{"$ref": "#/$defs/HttpOptions"}, {"type": "null"}]
        }
        references["serve"] = "ServerOptions"
    for name, target in references.items():
        if name in properties:
            text = properties[name].get("description", "")
            properties[name] = {"$ref": f"#/$defs/{target}", "description": text}
    if "roles" in properties:
        properties["roles"]["additionalProperties"] = {"$ref": "#/$defs/AgentConfig"}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _fields_of(options: ServerOptions | HttpOptions) -> dict[str, Any]:
    """The names that there are, with their defaults; the rules for values are in code."""
    return {
        "type": "object",
        "description": inspect.cleandoc(type(options).__doc__ or ""),
        "properties": {name: {"default": value} for name, value in options.to_mapping().items()},
        "additionalProperties": False,
    }
