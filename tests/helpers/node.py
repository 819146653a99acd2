"""Node, and onnxruntime-web from npm, for tests of the JavaScript code."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from places import ROOT

from morvit_deploy.measuring.browser.runtime import MANIFEST, PACKAGE, VERSION

PLACE = ROOT / "build" / f"{PACKAGE}-{VERSION}"  # npm installs it there once
TIMEOUT_S = 300


def require(*programs: str) -> None:
    """Skip the test where a program is not installed."""
    for name in programs:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def web_runtime() -> Path:
    """A folder where npm has installed onnxruntime-web; skips the test where it cannot."""
    require("node", "npm")
    package = PLACE / "node_modules" / PACKAGE
    PLACE.parent.mkdir(exist_ok=True)
    with FileLock(f"{PLACE}.lock"):
        if not (package / MANIFEST).is_file():
            options = ("--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
            command = ["npm", "install", *options, "--prefix", str(PLACE), f"{PACKAGE}@{VERSION}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
            if done.returncode:
                pytest.skip(f"npm cannot install {PACKAGE} {VERSION}: {done.stderr.strip()[-300:]}")
    return PLACE


def node_module() -> Path:
    """onnxruntime-web's module for Node."""
    return web_runtime() / "node_modules" / PACKAGE / "dist" / "ort.node.min.mjs"


def run_node(program: Path, request: Any, folder: Path) -> Any:
    """Give a program a JSON file and return the JSON that it prints."""
    (folder / "request.json").write_text(json.dumps(request))
    command = ["node", str(program), str(folder / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
