"""Responsible for the peers: the same work without us, from the bare system calls upwards."""
