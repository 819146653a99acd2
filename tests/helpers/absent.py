"""Runs Python where libraries are missing: a `sitecustomize` hides them, in processes that the program starts too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HIDING = """
import os, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["ABSENT"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
COMMAND = "from morvit_deploy.cli import main; main()"


def without(
    modules: Iterable[str], folder: Path, program: str, *words: object
) -> subprocess.CompletedProcess[str]:
    """Run a program in a new Python that has none of `modules`; `folder` takes what hides them."""
    (folder / "sitecustomize.py").write_text(HIDING)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ABSENT": " ".join(modules), "NO_COLOR": "1"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # no __pycache__ in the folder
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
