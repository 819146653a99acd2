"""Targets: a folder each. `target.py` says what it is, `export.py` writes, `run.py` runs and `proof.py` proves."""
