"""Settings that a checkpoint does not contain and the user must give."""
