"""Responsible for what is particular to one agent CLI: finding it, its argv, its environment."""
