"""Folders and their names for the tests of `morvit_deploy.files`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from morvit_deploy.files import new_folder

MARKER = "manifest.json"
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


def marked(text: str, *files: str) -> str:
    """A marker file as this tool writes it."""
    return json.dumps({"format": "morvit-test/1", "text": text, "files": files})


def write(final: Path, content: str = "new", force: bool = False) -> None:
    with new_folder(final, marker=MARKER, force=force) as partial:
        (partial / MARKER).write_text(marked(content))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
