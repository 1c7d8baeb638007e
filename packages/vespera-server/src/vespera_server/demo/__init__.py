"""`vespera demo`: several real Claude CLI agents at once, on scratch copies of a small project."""
