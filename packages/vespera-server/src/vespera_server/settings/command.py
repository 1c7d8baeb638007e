"""`vespera config show` and `vespera schema` as the user calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vespera_agent_spawner.errors import ConfigError
from vespera_server.demo.screen import console_for
from vespera_server.serve.options import ServerOptions
from vespera_server.settings.layers import Layered, load_settings
from vespera_server.settings.schema import schema_named
from vespera_server.state.directory import StateDirectory

__all__ = ["SECRET", "config_show", "schema"]

# Values of such fields are not printed: environments and settings hold keys.
SECRET = frozenset({"environment", "mcp_config", "settings"})


def config_show(*, as_json: bool) -> int:
    """Prints every setting with the layer it comes from; 2 when a layer is wrong."""
    try:
        layered = load_settings()
    except (ConfigError, OSError) as error:
        console_for(stderr=True).print(
            f"vespera config: {error}", style="red", markup=False, soft_wrap=True
        )
        return 2
    rows = list(_rows(layered))
    if as_json:
        answer = {field: {"value": value, "origin": origin} for field, value, origin in rows}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    width = max((len(field) for field, _, _ in rows), default=0)
    for field, value, origin in rows:
        if (field, value) == ("state.directory", None):
            origin = f"{origin}: {StateDirectory().root}"
        print(f"{field:<{width}} = {json.dumps(value, ensure_ascii=False)}  # {origin}")
    print("# supervisor, agent, roles: what is not shown is the engine's (vespera schema config)")
    return 0


def schema(*, which: str) -> int:
    """Prints a JSON Schema."""
    print(json.dumps(schema_named(which), indent=2, ensure_ascii=False))
    return 0


def _rows(layered: Layered) -> Iterator[tuple[str, Any, str]]:
    values = layered.values
    for section in ("supervisor", "agent", "roles"):
        for field, value in _flat(getattr(values, section), section):
            yield field, value, layered.origin(field)
    for section in ("run", "state"):
        for name, value in getattr(values, section).model_dump().items():
            field = f"{section}.{name}"
            yield field, value, layered.origin(field)
    for field, value in _flat(ServerOptions.from_mapping(values.serve).to_mapping(), "serve"):
        yield field, value, layered.origin(field)


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        field = f"{path}.{name}"
        if isinstance(value, Mapping) and value:
            hidden = name in SECRET
            yield from ((at, "…" if hidden else inner) for at, inner in _flat(value, field))
        else:
            yield field, value
