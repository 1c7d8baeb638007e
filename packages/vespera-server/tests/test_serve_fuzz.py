"""Responsible for hostile callers: whatever they send, an answer comes back, no traceback, and
nothing outside of the roots is touched or told."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp_types import INTERNAL_ERROR

from vespera_server.serve import VesperaServer

SECRET = "what-lies-outside-is-nobody's-business"

HOSTILE = st.sampled_from(
    [
        *("", ".", "..", "/", "//", "~", "-", "--help", "\0", "a\0b", "\n", "\ud800", "é" * 300),
        *("../outside/secret.txt", "../outside", "./../outside/secret.txt", "sub/../../outside"),
        *("link", "link/secret.txt", "file-link", "loop", "/etc/passwd", "/proc/self/environ"),
        *("file.txt", "sub", "sub/deep.txt", "new.txt", "**/*", "../**/*", "[", "{a,b", "*" * 200),
        *("claude", "sh", "/bin/sh", "$(id)", "; touch x", "`id`", "Bash", "Read,Bash", "*"),
        *("bypassPermissions", "plan", "a" * 5000, "[]", "null", "{}", "1e999", "%s%n", "{0}"),
    ]
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.sampled_from([0, 1, -1, 0.0])
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | HOSTILE | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=6,
)


def values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema accepts, as nasty as it accepts it; now and then what it does not."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        inner = st.one_of([values(each, definitions) for each in schema["anyOf"]])
    elif schema.get("type") == "object":
        inner = objects(schema, definitions)
    elif schema.get("type") == "array":
        inner = st.lists(values(schema["items"], definitions), max_size=3)
    elif schema.get("type") == "string":
        inner = HOSTILE | st.text(max_size=30)
        if "pattern" in schema:
            inner = st.sampled_from(["a", "b", "agent-1", "x.y_z"]) | inner
    elif schema.get("type") in ("number", "integer"):
        # Nobody here waits: what is waited for would never come.
        low, high = schema.get("minimum", 0), min(schema.get("maximum", 5), 5)
        inner = st.integers(int(low), max(int(low), int(high)))
        if "maximum" not in schema or schema["maximum"] != 3600:
            inner = inner | NUMBERS
    elif schema.get("type") == "boolean":
        inner = st.booleans()
    else:
        inner = st.none()
    return inner


def objects(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = {
        name: values(each, definitions) for name, each in schema.get("properties", {}).items()
    }
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: each for name, each in properties.items() if name in required},
        optional={name: each for name, each in properties.items() if name not in required},
    )


def calls_of(tools: list[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Calls of tools: most as their schemas say, some as no schema says."""
    each = []
    for tool in tools:
        schema = tool.input_schema
        fitting = objects(schema, schema.get("$defs", {}))
        # `wait_seconds` stays small, whatever else is wild.
        names = [name for name in schema.get("properties", ()) if "seconds" not in name]
        wild = st.dictionaries(st.sampled_from([*names, "bogus"]), ANYTHING, max_size=4)
        mixed = st.tuples(fitting, wild).map(lambda pair: pair[0] | pair[1])
        each.append(st.tuples(st.just(tool.name), st.one_of(fitting, mixed, wild)))
    return st.one_of(each)


def server(place: Path) -> VesperaServer:
    return VesperaServer(
        {
            "roots": [str(place / "root")],
            "programs": {"claude": str(place / "nowhere" / "claude")},
            "environment": [],
        }
    )


def lay_out(place: Path) -> None:
    root, outside = place / "root", place / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    (root / "file.txt").write_text("one\ntwo\n")
    (root / "sub" / "deep.txt").write_text("deep\n")
    (root / "link").symlink_to(outside)
    (root / "file-link").symlink_to(outside / "secret.txt")
    (root / "loop").symlink_to(root / "loop")


def fingerprint(directory: Path) -> dict[str, tuple[int, int, str]]:
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


with tempfile.TemporaryDirectory() as _folder:
    (Path(_folder) / "root").mkdir()
    TOOLS = asyncio.run(server(Path(_folder)).mcp_server.list_tools())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["legacy", "auto"])
@settings(
    max_examples=25,
    deadline=None,
    # A failing list of calls is short enough to read; making it shorter takes minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(calls=st.lists(calls_of(TOOLS), min_size=1, max_size=12))
def test_no_call_gets_a_traceback_or_out_of_the_roots(
    mode: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lay_out(place)
        before = fingerprint(place / "outside")

        async def main() -> None:
            async with Client(server(place).mcp_server, mode=mode) as client:
                for name, arguments in calls:
                    try:
                        result = await client.call_tool(name, arguments)
                    except UnicodeEncodeError:
                        continue  # this client cannot even say it; test_serve_doors sends the bytes
                    except MCPError as error:
                        if error.error.code == INTERNAL_ERROR:
                            raise
                        # Refused before it came to a tool, and not by an accident.
                        continue
                    told = str(result)
                    assert "Traceback" not in told
                    assert SECRET not in told
                    answer = result.structured_content
                    assert isinstance(answer, dict), (name, arguments, told)
                    assert result.is_error is not answer["success"]
                    if not answer["success"]:
                        assert answer["error"]["code"] != "internal", (name, arguments, answer)
                        assert answer["error"]["remedy"]

        asyncio.run(main())
        assert fingerprint(place / "outside") == before
        assert {path.name for path in place.iterdir()} == {"root", "outside"}


def test_every_argument_says_what_it_is() -> None:
    for tool in TOOLS:
        assert tool.description
        assert tool.input_schema["additionalProperties"] is False
        for name, schema in tool.input_schema.get("properties", {}).items():
            assert schema.get("description"), f"{tool.name}.{name}"
        assert tool.output_schema is not None
        assert {"success", "error"} <= set(tool.output_schema["properties"])
