"""A place of its own for the demo: HOME, configuration, temporary files and scratch copies.

Nothing of the user's environment but PATH (and the locale) gets in, nothing of the demo gets
out: the user's home stays as it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1,localhost,::1"


@dataclass(frozen=True)
class Surroundings:
    """The demo's directories beneath one temporary root."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> Surroundings:
        """Makes the directories; `root` exists and is empty."""
        place = cls(root)
        for directory in (place.home, place.config, place.temporary, place.work):
            directory.mkdir(mode=0o700)
        return place

    @property
    def home(self) -> Path:
        """What the agents see as HOME."""
        return self.root / "home"

    @property
    def config(self) -> Path:
        """CLAUDE_CONFIG_DIR."""
        return self.root / "config"

    @property
    def temporary(self) -> Path:
        """TMPDIR; a short name, since the CLI puts Unix sockets there (108 bytes at most)."""
        return self.root / "t"

    @property
    def work(self) -> Path:
        """The parent of the scratch copies."""
        return self.root / "work"

    def copy_for(self, agent_id: str) -> Path:
        """The scratch copy of one agent."""
        return self.work / agent_id

    def environment(self, base_url: str, host: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The whole environment of a scripted agent."""
        # The interpreter's own directory goes last: the agents run python3, which a machine
        # with only a virtual environment may have nowhere else.
        path = [host.get("PATH", os.defpath), str(Path(sys.executable).parent)]
        environment = {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.home),
            "CLAUDE_CONFIG_DIR": str(self.config),
            "TMPDIR": str(self.temporary),
            "ANTHROPIC_BASE_URL": base_url,
            "ANTHROPIC_API_KEY": "scripted-model-takes-any-key",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            # No proxy is passed on, but a tool of the CLI may bring its own: behind a proxy
            # without these the CLI sends loopback traffic to it and retries for ever.
            "NO_PROXY": LOOPBACK,
            "no_proxy": LOOPBACK,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for name in ("LANG", "LC_ALL"):
            if name in host:
                environment[name] = host[name]
        return environment
