"""`python -m vespera_server` is the `vespera` command."""

from vespera_server.cli import main

main()
