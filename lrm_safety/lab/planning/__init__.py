"""What a run will need before it is started: memory of every group, tokens, hours."""
