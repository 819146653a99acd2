"""What holds for files that run on a device by themselves, and the old interpreters that are here to try them."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path


def assert_standalone(path: Path, *, own_folder: bool = False) -> None:
    """Python 3.8 parses the file, and it imports the standard library alone; with `own_folder`, neighbours too."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= set(sys.stdlib_module_names)
        if isinstance(node, ast.ImportFrom) and not (own_folder and node.level):
            assert node.module and node.module.split(".")[0] in sys.stdlib_module_names


def old_python(version: str) -> str | None:
    """An interpreter that starts: a version manager's shim may be there without one behind it."""
    installed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *map(str, installed.glob(f"{version}*/bin/python"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None
