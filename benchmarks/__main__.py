"""Responsible for all tables in one: `python -m benchmarks`, which `nox -s bench` runs."""

from benchmarks import agents, command, files, files_find, pool, sampling, standing

GROUPS = {
    "agents": agents.GROUP,
    "standing": standing.GROUP,
    "sampling": sampling.GROUP,
    "pool": pool.GROUP,
    "files": files.GROUP,
    "files_find": files_find.GROUP,
}

if __name__ == "__main__":
    command.run(__doc__, GROUPS)
