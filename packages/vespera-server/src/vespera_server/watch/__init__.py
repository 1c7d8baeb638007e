"""What runs on this machine, seen from outside: `vespera ps`, `top`, `logs`, `kill`, `history`."""
