"""Every vector of ``vectors/config.json`` holds in Python, and in Rust where it is built."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from vespera_agent_spawner.config import AgentConfig, Limits, SupervisorConfig, Timeouts
from vespera_agent_spawner.errors import AgentError, ConfigError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "config.json").read_text(encoding="utf-8")
)
CLASSES: Mapping[str, type[AgentConfig | SupervisorConfig]] = {
    "agent": AgentConfig,
    "supervisor": SupervisorConfig,
}


def expand(value: Any) -> Any:
    """What JSON cannot say, or only at length, is written as an object with one ``$`` name."""
    match value:
        case {"$repeat": [text, count]}:
            return text * count
        case {"$nest": levels}:
            nested: dict[str, Any] = {}
            for _ in range(levels - 1):
                nested = {"a": nested}
            return nested
        case {"$key": [text, count], "$value": content}:
            return {text * count: content}
        case {"$float": text}:
            return float(text)
        case {"$digits": count}:
            return 10**count - 1
        case {"$surrogate": digits}:
            return chr(int(digits, 16))
        case dict():
            return {name: expand(item) for name, item in value.items()}
        case list():
            return [expand(item) for item in value]
        case _:
            return value


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type; NaN equals itself."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def as_rust_reads(value: Any) -> Any:
    """Whole numbers beyond 64 bits are floats to Rust's JSON."""
    is_too_large = type(value) is int and not -(2**63) <= value < 2**64
    return float(value) if is_too_large else value


def check_error(error: BaseException, expected: Mapping[str, Any]) -> None:
    assert isinstance(error, ConfigError)
    assert isinstance(error, ValueError)
    assert error.field == expand(expected["field"])
    assert error.remedy == expected["remedy"]
    assert same(error.value, expand(expected["value"]))
    assert error.code == "config"
    assert str(error).endswith(error.remedy)


def vectors(kind: str | None = None, *, json_only: bool = False) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"])
        for vector in VECTORS["vectors"]
        if kind in (None, vector["kind"]) and (vector.get("json", True) or not json_only)
    ]


@pytest.mark.parametrize("vector", vectors())
def test_python_agrees_with_the_vector(vector: Mapping[str, Any]) -> None:
    cls = CLASSES[vector["kind"]]
    if "error" in vector:
        with pytest.raises(ConfigError) as caught:
            cls.from_mapping(expand(vector["input"]))
        check_error(caught.value, vector["error"])
        return
    config = cls.from_mapping(expand(vector["input"]))
    expected = {**VECTORS["defaults"][vector["kind"]], **expand(vector["normalised"])}
    assert same(config.to_mapping(), expected)
    assert json.loads(config.to_json()) == expected
    assert cls.from_mapping(config.to_mapping()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config


@pytest.mark.parametrize("vector", vectors("agent", json_only=True))
def test_rust_agrees_with_the_vector(vector: Mapping[str, Any]) -> None:
    try:
        native = importlib.import_module("vespera_agent_spawner._native")
    except ImportError:
        pytest.skip("the extension is not built")
    text = json.dumps(expand(vector["input"]))
    if "error" in vector:
        with pytest.raises(AgentError) as caught:
            native.validate_agent_config(text)
        check_error(
            caught.value, {**vector["error"], "value": as_rust_reads(vector["error"]["value"])}
        )
        return
    expected = {**VECTORS["defaults"]["agent"], **expand(vector["normalised"])}
    assert same(json.loads(native.validate_agent_config(text)), expected)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_schema_names_the_fields_of_the_classes(kind: str) -> None:
    cls = CLASSES[kind]
    package = Path(importlib.import_module("vespera_agent_spawner.config").__file__ or "").parent
    schema = json.loads((package / "config_schema.json").read_text(encoding="utf-8"))
    for part in (cls, Timeouts, Limits):
        known = schema["$defs"][part.__name__]["properties"]
        assert set(known) == {field.name for field in dataclasses.fields(part)}
    defaults = {
        name: value["default"]
        for name, value in schema["$defs"][cls.__name__]["properties"].items()
    }
    assert defaults == VECTORS["defaults"][kind]


def test_there_are_enough_vectors() -> None:
    assert len(VECTORS["vectors"]) >= 100
    assert all(("error" in vector) != ("normalised" in vector) for vector in VECTORS["vectors"])


def test_what_only_python_can_give_is_accepted() -> None:
    def ask() -> bool:
        return True

    config = AgentConfig(
        working_directory=Path("work"),
        args=("a", "\udcff"),
        add_dirs=(Path("b"),),
        tools=[ask],
        on_permission=ask,
        hooks={"PreToolUse": [ask], "Stop": ask},
        timeouts=Timeouts(turn="5m"),
    )
    assert config.working_directory == "work"
    assert config.tools == (ask,)
    assert config.hooks == {"PreToolUse": (ask,), "Stop": ask}
    plain = config.to_mapping()
    assert plain["tools"] is plain["hooks"] is plain["on_permission"] is None
    assert json.loads(config.to_json())["args"] == ["a", "?"]


@pytest.mark.parametrize("field", ["on_permission", "workspace"])
def test_one_function_is_no_list_of_them(field: str) -> None:
    for given in ([print], {"a": print}):
        with pytest.raises(ConfigError) as caught:
            AgentConfig(**{field: given})  # type: ignore[arg-type]
        error = caught.value
        assert (error.field, error.value) == (field, given)
        assert error.remedy == "give one Python function"


def test_a_configuration_is_frozen_and_replaced_with_checks() -> None:
    config = AgentConfig(limits={"memory": "2GiB"})
    assert config.limits is not None
    assert config.limits.memory == 2 << 30
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model = "x"  # type: ignore[misc]
    with pytest.raises(ConfigError, match="max_turns"):
        dataclasses.replace(config, max_turns=0)


def test_defaults_are_not_shared() -> None:
    first, second = AgentConfig(), AgentConfig()
    first.environment["A"] = "b"
    assert second.environment == AgentConfig().environment == {}


def test_secrets_of_the_environment_are_in_no_repr_or_error() -> None:
    config = AgentConfig(agent_id="docs", environment={"API_KEY": "hunter2"})
    assert repr(config) == "AgentConfig(agent_id='docs', environment={'API_KEY': …})"
    with pytest.raises(ConfigError) as caught:
        AgentConfig(environment={"API_KEY": "hunter2\0"})
    assert "hunter2" not in str(caught.value) + repr(caught.value.context)
    with pytest.raises(ConfigError) as caught:
        AgentConfig.from_mapping({"environ": {"API_KEY": "hunter2"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("cls", [AgentConfig, SupervisorConfig, Timeouts, Limits])
def test_a_mistyped_keyword_is_told_as_a_mistyped_name_is(cls: Any) -> None:
    first = dataclasses.fields(cls)[0].name
    wrong = first + "x"
    with pytest.raises(ConfigError, match=f'did you mean "{first}"') as by_keyword:
        cls(**{wrong: "hunter2"})
    with pytest.raises(ConfigError) as by_name:
        cls.from_mapping({wrong: "hunter2"})
    told = [(str(one.value), one.value.field, one.value.value) for one in (by_keyword, by_name)]
    assert told[0] == told[1]
    assert "hunter2" not in told[0][0]
