"""Settings that a checkpoint does not hold and the user must give."""
