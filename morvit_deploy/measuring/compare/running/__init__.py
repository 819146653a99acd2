"""What opens and runs a graph or a checkpoint, and the process that does."""
