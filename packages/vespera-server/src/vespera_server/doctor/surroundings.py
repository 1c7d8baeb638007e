"""Environment variables that change what agents do. Names only: values may hold passwords."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vespera_server.doctor.finding import Finding, Status
from vespera_server.environment import DEFAULT_GROUPS, names_by_group

SECTION = "environment"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR")
_REDIRECTS = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CONFIG_DIR",
)


def check_environment(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about proxies, about where the CLI sends its requests, about nested agents."""
    yield _passed_on(environment)
    yield _proxies(environment)
    yield from _certificates(environment)
    set_names = [name for name in _REDIRECTS if environment.get(name)]
    if set_names:
        yield Finding(
            SECTION,
            "account",
            Status.NOTE,
            f"set: {', '.join(set_names)}",
            "agents of yours inherit these; 'vespera demo' passes none of them on",
        )
    if "CLAUDECODE" in environment:
        yield Finding(
            SECTION,
            "CLAUDECODE",
            Status.NOTE,
            "set: this runs inside a Claude CLI",
            "nothing to do: agents are started without it, since the CLI refuses to nest",
        )


def _passed_on(environment: Mapping[str, str]) -> Finding:
    """What agents of `vespera serve` would get, by group."""
    groups = {group: names for group, names in names_by_group(environment).items() if names}
    words = [
        f"{group}{'' if group in DEFAULT_GROUPS else ' (off)'}: {', '.join(names)}"
        for group, names in groups.items()
    ]
    return Finding(SECTION, "agents get", Status.OK, "; ".join(words) or "nothing")


def _certificates(environment: Mapping[str, str]) -> Iterator[Finding]:
    """The CLI goes on without a file that it cannot read, and fails at the company's proxy."""
    for name in _CERTIFICATES:
        if not environment.get(name):
            continue
        value = environment[name]
        try:
            if name.endswith("_DIR"):
                for directory in value.split(os.pathsep):
                    next(Path(directory).iterdir(), None)
            else:
                Path(value).open("rb").close()
        except OSError as error:
            yield Finding(
                SECTION,
                name,
                Status.WARNING,
                f"{error.filename}: {error.strerror}",
                f"correct {name}, or unset it: its certificates are not used",
            )
        else:
            yield Finding(SECTION, name, Status.OK, value)


def _proxies(environment: Mapping[str, str]) -> Finding:
    names = [
        spelling
        for name in _PROXIES
        for spelling in (name, name.lower())
        if environment.get(spelling)
    ]
    if not names:
        return Finding(SECTION, "proxies", Status.OK, "none configured")
    value = f"set: {', '.join(names)}"
    excepted = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    hosts = {host.strip() for host in excepted.split(",")}
    if "*" in hosts or {"127.0.0.1", "localhost"} <= hosts:
        return Finding(SECTION, "proxies", Status.OK, f"{value}; NO_PROXY excepts loopback")
    return Finding(
        SECTION,
        "proxies",
        Status.WARNING,
        f"{value}; NO_PROXY does not except loopback",
        "export NO_PROXY=127.0.0.1,localhost: local MCP servers and gateways are otherwise sought "
        "at the proxy ('vespera demo' sets it for its agents)",
    )
