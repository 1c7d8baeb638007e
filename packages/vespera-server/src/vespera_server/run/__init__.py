"""`vespera run FILE`: a batch of agents from a file, durable, with the user's own CLI."""
