"""Responsible for the asv suites and the table: the same work, ours beside the alternatives."""
