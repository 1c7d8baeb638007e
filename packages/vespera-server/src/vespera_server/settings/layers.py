"""Responsible for where a setting comes from: five layers, the later one wins field by field.

    1  built in
    2  <user's configuration directory>/vespera/vespera.toml
    3  [tool.vespera] of the nearest pyproject.toml that has it
    4  vespera.toml, here or in the nearest directory above
    5  environment: VESPERA_<SECTION>__<FIELD>, e.g. VESPERA_SUPERVISOR__MAX_AGENTS=4

What limits the callers of a server (``OPERATORS``) is refused in 3 and 4: a caller that may write
files in the project would decide it for the next start.

Task files and command lines come after these. Each layer is read by its source of
pydantic-settings and checked alone, so that an error names the layer that is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError
from pydantic_settings import (
    EnvSettingsSource,
    PyprojectTomlConfigSettingsSource,
    TomlConfigSettingsSource,
)

from vespera_server.documents import read_document
from vespera_server.documents.errors import DocumentError, dotted
from vespera_server.settings.model import OPERATORS, PREFIX, Settings, SettingsSources
from vespera_server.settings.problems import problems_of

__all__ = ["BUILT_IN", "Layer", "Layered", "load_settings", "merged"]

BUILT_IN = "built in"
ENVIRONMENT = "environment"
FILE = "vespera.toml"
_HEADER = ("tool", "vespera")
_SECTIONS = frozenset(Settings.model_fields)
# Sections that the engine's rules check, or classes built as its own.
_ENGINE = frozenset({"supervisor", "agent", "roles", "serve"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of settings and what it says."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layered:
    """All layers and what they come to. ``origins`` maps ``section.field`` to its layer."""

    values: Settings
    layers: tuple[Layer, ...]
    origins: Mapping[str, str]

    def origin(self, field: str) -> str:
        """The layer that set a field (``state.max_size``)."""
        return self.origins.get(field, BUILT_IN)


def load_settings(
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    project: bool = True,
) -> Layered:
    """Read all layers as seen from ``directory``; raises ``ConfigError`` naming the wrong one.

    Without ``project`` the project's files are not looked at.
    """
    directory = Path.cwd() if directory is None else directory
    environment = os.environ if environment is None else environment
    files = (*_user_file(), *(_project_files(directory) if project else ()))
    layers = (*files, _environment_layer(environment))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        values = merged(values, layer.values)
        for field in _leaves(layer.values):
            origins[field] = layer.origin
    return Layered(Settings.model_validate(values), layers, origins)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Field by field, ``over`` wins; lists are values and replaced whole."""
    result = dict(under)
    for name, value in over.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[name] = value
    return result


def _user_path() -> Path:
    return platformdirs.user_config_path("vespera") / FILE


def _user_file() -> Iterator[Layer]:
    if _user_path().is_file():
        yield _toml_layer(_user_path(), ())


def _project_files(directory: Path) -> Iterator[Layer]:
    above = (directory, *directory.parents)
    for parent in above:
        path = parent / "pyproject.toml"
        if path.is_file() and _pyproject(path):
            yield _toml_layer(path, _HEADER, OPERATORS)
            break
    for parent in above:
        path = parent / FILE
        if path.is_file() and path != _user_path():
            yield _toml_layer(path, (), OPERATORS)
            break


def _pyproject(path: Path) -> Mapping[str, Any]:
    try:
        return PyprojectTomlConfigSettingsSource(SettingsSources, path).toml_data
    except (ValueError, AttributeError):  # somebody else's file, and not valid: not our business
        return {}


def _toml_layer(
    path: Path, header: tuple[str, ...], refused: frozenset[str] = frozenset()
) -> Layer:
    document = read_document(path)  # for its lines, and for a syntax error that names one
    if header:
        values = dict(_pyproject(path))
    else:
        values = dict(TomlConfigSettingsSource(SettingsSources, path).toml_data)
    for section in sorted(refused & values.keys()):
        problem = f"a project does not decide this; write it into {_user_path()}"
        raise document.error((*header, section), problem, values[section])
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        at, problem, value = next(problems_of(error, Settings))
        raise document.error((*header, *at), problem, value) from error
    return Layer(str(path), values)


def _environment_layer(environment: Mapping[str, str]) -> Layer:
    for name in environment:
        section = name.removeprefix(PREFIX).partition("__")[0].lower()
        if name.startswith(PREFIX) and "__" in name and section not in _SECTIONS:
            raise DocumentError(
                f"there is no section {section!r}; use one of {', '.join(sorted(_SECTIONS))}",
                file=ENVIRONMENT,
                field=name,
            )
    source = EnvSettingsSource(SettingsSources)
    # Its own snapshot is that of os.environ; tests and embedders bring another.
    source.env_vars = {name.lower(): value for name, value in environment.items()}
    values = {
        name: _decoded(value) if name in _ENGINE else value for name, value in source().items()
    }
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        at, problem, value = next(problems_of(error, Settings))
        name = PREFIX + "__".join(str(part).upper() for part in at)
        raise DocumentError(
            problem, file=ENVIRONMENT, field=name, value=value, remedy=f"correct {dotted(at)}"
        ) from error
    return Layer(ENVIRONMENT, values)


def _decoded(value: Any) -> Any:
    """Texts of the environment as JSON where they are (4, true, ["Read"]), else as they are."""
    if isinstance(value, Mapping):
        return {name: _decoded(member) for name, member in value.items()}
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        field = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, field)
        else:
            yield field
