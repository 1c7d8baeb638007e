"""Responsible for agents that get what the operator chose, and nothing else."""

from __future__ import annotations

import pytest

from vespera_agent_spawner.errors import ConfigError
from vespera_server.environment import DEFAULT_GROUPS, GROUPS, names_by_group, select

HOST = {
    "PATH": "/bin",
    "HOME": "/somewhere",
    "LC_TIME": "C",
    "https_proxy": "http://u:secret@p",
    "NODE_EXTRA_CA_CERTS": "/ca",
    "ANTHROPIC_API_KEY": "the-key",
    "CLAUDE_CODE_USE_BEDROCK": "1",
    "CLAUDECODE": "1",
    "CLAUDE_CODE_ENTRYPOINT": "cli",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "GOOGLE_CLOUD_PROJECT": "g",
    "SSH_AUTH_SOCK": "/s",
    "LD_PRELOAD": "/evil.so",
    "MINE": "m",
}


def test_the_usual_groups_pass_no_cloud_credentials_and_nothing_unknown() -> None:
    assert set(select(host=HOST)) == {
        *("PATH", "HOME", "LC_TIME", "https_proxy", "NODE_EXTRA_CA_CERTS"),
        *("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK"),
    }


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_can_be_switched(group: str) -> None:
    others = [name for name in GROUPS if name != group]
    names = set(names_by_group(HOST)[group])
    assert names
    assert names.isdisjoint(select(others, host=HOST))
    assert names <= set(select([*others, group], host=HOST))


def test_single_names_can_be_added_but_no_mark_of_an_outer_cli() -> None:
    chosen = select((), ("MINE", "CLAUDECODE", "ABSENT"), HOST)
    assert chosen == {"MINE": "m"}


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no group 'azure'.*aws"):
        select([*DEFAULT_GROUPS, "azure"], host=HOST)


def test_names_come_without_values() -> None:
    assert "the-key" not in str(names_by_group(HOST))
