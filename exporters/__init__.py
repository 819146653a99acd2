"""Targets: one `to_X.py` that writes a bundle, one `run_X.py` that runs it, one line in the registry."""
