"""One folder for each target: `target.py` describes it, `export.py` writes, `run.py` runs, `proof.py` proves."""
