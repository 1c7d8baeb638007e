"""Responsible for carrying out a Dockerfile where no container engine is.

The root is an overlay over this machine's own, in a mount namespace of its own; what is written
goes to a directory of the test. ``FROM`` is taken for granted, ``RUN`` is carried out as a shell
would, and the entry point as process 1 of a pid namespace, as the user that the file names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Container", "Instruction", "read_dockerfile"]

_ROOT_NEEDS = ("proc", "dev", "sys")


@dataclass(frozen=True)
class Instruction:
    """One line of a Dockerfile."""

    word: str
    rest: str


def read_dockerfile(path: Path) -> list[Instruction]:
    """The instructions, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text("utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    return [
        Instruction(*line.split(None, 1)) for line in lines if line and not line.startswith("#")
    ]


@dataclass
class Container:
    """An image being built, then run."""

    folder: Path
    binds: dict[str, Path] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    directory: str = "/"
    volumes: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @staticmethod
    def possible(folder: Path) -> bool:
        """Whether this machine lets us mount an overlay in a namespace."""
        if os.geteuid() != 0:
            return False
        probe = Container(folder)
        try:
            return probe._inside(["true"], {}).returncode == 0
        except OSError:
            return False

    def build(self, instructions: list[Instruction], variables: Mapping[str, str]) -> list[str]:
        """Carry out the file; returns the ``RUN`` lines that were left out."""
        left_out = []
        for step in instructions:
            match step.word:
                case "FROM":
                    continue
                case "RUN" if "apt-get" in step.rest:
                    left_out.append(step.rest)  # another distribution's packages, from the network
                case "RUN":
                    done = self._inside(["sh", "-ec", step.rest], {**variables, **self.environment})
                    assert done.returncode == 0, f"RUN {step.rest}\n{done.stdout}{done.stderr}"
                case "ENV":
                    self.environment |= dict(word.split("=", 1) for word in shlex.split(step.rest))
                case "USER":
                    self.user = step.rest
                case "WORKDIR":
                    self.directory = step.rest
                case "VOLUME":
                    self.volumes.append(step.rest)
                case "ENTRYPOINT":
                    self.entrypoint = json.loads(step.rest)
                case "CMD":
                    self.command = json.loads(step.rest)
                case _:
                    raise AssertionError(f"{step.word} is not known to this test")
        return left_out

    def start(self, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """`docker run`: the entry point is process 1 of its namespace."""
        command = self._as_user([*self.entrypoint, *(arguments or self.command)])
        inner = f"cd {shlex.quote(self.directory)} && exec {shlex.join(command)}"
        return subprocess.Popen(
            self._command(["sh", "-c", inner], pid=True),
            env={**environment, **self.environment, "HOME": f"/home/{self.user}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def try_as_user(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Whether the image's user may run something of it."""
        return self._inside(self._as_user(command), self.environment)

    def _as_user(self, command: list[str]) -> list[str]:
        ids = [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        return ["setpriv", *ids, "--", *command]

    def _inside(
        self, command: list[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(command, pid=False),
            env={"PATH": os.environ["PATH"], "HOME": "/root", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def _command(self, command: list[str], *, pid: bool) -> list[str]:
        upper, work, root = (self.folder / name for name in ("upper", "work", "root"))
        for directory in (upper, work, root):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
        mounts = [
            "mount --make-rprivate /",
            f"mount -t overlay overlay -o lowerdir=/,upperdir={upper},workdir={work} {root}",
            *(f"mount --rbind /{name} {root}/{name}" for name in _ROOT_NEEDS),
            *(
                f"mkdir -p {root}{target} && mount --bind {source} {root}{target}"
                for target, source in self.binds.items()
            ),
        ]
        script = "set -e\n" + "\n".join(mounts) + '\nexec "$@"'
        flags = ["--mount"]
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
        inner = [chroot, str(root), *command]
        if pid:
            # /proc must be that of the namespace, and the chroot itself process 1 in it.
            flags += ["--pid", "--fork", "--kill-child"]
            mount_proc = f"mount -t proc proc {root}/proc && exec " + shlex.join(inner)
            inner = ["sh", "-c", mount_proc]
        return ["unshare", *flags, "sh", "-c", script, "sh", *inner]
