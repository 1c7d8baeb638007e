"""``event.data``: what Python's own ``json`` makes of a line, whoever makes the objects."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleets import Fleet
from vespera_agent_spawner import Event, events


@pytest.fixture(params=["decoder of the machine", "json"])
def fleet(backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    if request.param == "json":
        monkeypatch.setattr(events, "_decode", events._plain)
    return Fleet(backend, f"{request.node.name}-{id(request)}")


async def said(fleet: Fleet, lines: list[str]) -> list[Event]:
    """What an agent's lines are, less those around them."""
    start = json.dumps({"type": "start"})
    stop = json.dumps({"type": "stop"})
    result = json.dumps({"type": "result", "subtype": "success"})
    prompt = "say " + json.dumps([start, *lines, stop, result])
    async with fleet.supervisor() as sup:
        agent = await sup.spawn(fleet.config(prompt))
        found = [event async for event in agent]
    kinds = [event.kind for event in found]
    return found[kinds.index("start") + 1 : kinds.index("stop")]


def exactly(value: Any) -> Any:
    """Equal for what is the same to the last bit and type: 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return [(key, exactly(each)) for key, each in value.items()]
    if isinstance(value, list):
        return [exactly(each) for each in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    return (type(value).__name__, value)


# Each is the value of a frame's field.
VALUES = [
    *("0", "-0", "-0.0", "1E5", "1.0e+05", "0.1", "3.141592653589793238462643383279"),
    *("1e-400", "5e-324", "2.2250738585072011e-308", "1.7976931348623157e308"),
    *("9223372036854775808", "-9223372036854775808", "18446744073709551615"),
    *("true", "false", "null", " 1 ", "[]", "{}", "[[], {}]", '{"": 1}'),
    *('"\\ud83d\\ude00"', '"a\\u0000b"', '"\\/"', '"é\\u00e9\u2028\x7f"', f'"{"x" * 70}"'),
    *('"\\ud800"', '"\\udc00\\ud800 \\ud83d"', '{"\\ud800": "\\ud800"}'),
    *('{"a": 1, "b": 2, "a": [3]}', '{"b": 1, "a": 2}'),
    *("NaN", "Infinity", "-Infinity", "[NaN, -Infinity]"),
    *("[" * depth + "]" * depth for depth in (150, 250, 450)),
    *(f"0.{'1' * 800}", f'"{"n" * 100_000}"', "0.30000000000000004", "-1e-7"),
]


def test_every_value_is_what_json_makes_of_it(fleet: Fleet) -> None:
    lines = [f'{{"type":"thing","value":{value}}}' for value in VALUES]
    for value, line, event in zip(VALUES, lines, asyncio.run(said(fleet, lines)), strict=True):
        assert event.kind == "thing", value
        assert exactly(event.data) == exactly(json.loads(line)), value
        assert event.data is event.data


def test_whole_numbers_of_any_size_keep_their_digits(backend: str) -> None:
    fleet = Fleet(backend, "digits")
    number = 3**400
    [event] = asyncio.run(said(fleet, [f'{{"type":"thing","value":{number},"minus":-{number}}}']))
    if backend == "rust" or events._decode is events._plain:
        assert event.data == {"type": "thing", "value": number, "minus": -number}
    else:  # orjson's own way
        assert event.data["value"] == float(number)


# Not JSON, whoever reads them.
BROKEN = [
    *("01", "1.", ".5", "+1", "--1", "1e", "nul", "1_0", "- 1", "-NaN", "-", "Infinity1", ""),
    *('"\\x"', '"\\u12"', '"\t"', '"', "[1,]", "[1 2]", "{,}", '{"a"}', "{1: 2}", "]", "1} x"),
]


def test_what_is_no_json_is_a_line_without_data(fleet: Fleet) -> None:
    lines = [f'{{"type":"thing","value":{value}}}' for value in BROKEN]
    for value in BROKEN:
        with pytest.raises(json.JSONDecodeError):
            json.loads(f'{{"type":"thing","value":{value}}}')
    for value, event in zip(BROKEN, asyncio.run(said(fleet, lines)), strict=True):
        assert event.data == {}, value
        assert event.raw == f'{{"type":"thing","value":{value}}}'.encode()


texts = st.text(max_size=20) | st.sampled_from(['"', "\\", "/\n\t\x00", "é" * 40, "type"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.lists(st.dictionaries(texts, values, max_size=4), max_size=10))
def test_any_frame_is_what_json_makes_of_it(backend: str, frames: list[dict[str, Any]]) -> None:
    fleet = Fleet(backend, "any-frame")
    lines = [
        json.dumps({"type": "thing", **frame, "kind": 1}, ensure_ascii=number % 2 == 0)
        for number, frame in enumerate(frames)
        if "type" not in frame
    ]
    for line, event in zip(lines, asyncio.run(said(fleet, lines)), strict=True):
        assert exactly(event.data) == exactly(json.loads(line))
