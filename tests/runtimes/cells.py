"""Runs a bundle in a runtime: a process of its own, with a time limit, whose end is no crash of the command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from environments import FOLDER, WORKER_JS, clean_environ
from runtimes import Runtime

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.pixels import Pixels

HERE = Path(__file__).resolve().parent
PATIENCE_S = 300
COLOR = re.compile(r"\x1b\[[0-9;]*m")
ERROR = re.compile("[Ee]rror|[Ee]xception")


class Failed(Exception):
    """How a worker ended, in a few words."""


@dataclass(frozen=True)
class Ran:
    """What a runtime returned."""

    version: str  # as the runtime states it
    outputs: Arrays  # (images, …) each


def run(
    runtime: Runtime, command: list[str], bundle: Path, pictures: Pixels, patience_s: float = PATIENCE_S
) -> Ran:
    """Run pictures in a bundle; `command` begins with the runtime's interpreter. Raises Failed."""
    with TemporaryDirectory() as folder:
        given, results = Path(folder) / "pictures.npy", Path(folder) / "results.json"
        np.save(given, pictures)
        worker = [*command, *_worker(runtime), str(bundle), str(given), str(results)]
        try:
            done = subprocess.run(
                worker, capture_output=True, text=True, errors="replace", timeout=patience_s,
                env=clean_environ(), cwd=folder, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {patience_s:g} s") from None
        if done.returncode or not results.is_file():
            raise Failed(how_it_ended(done.returncode, done.stderr))
        found = json.loads(results.read_text())
    # JSON of JavaScript has null for NaN
    return Ran(
        found["version"], {name: np.array(x, dtype=np.float64) for name, x in found["outputs"].items()}
    )


def _worker(runtime: Runtime) -> list[str]:
    """The script and what it is told of the runtime."""
    script = HERE / "worker.py" if runtime.pythons else FOLDER / runtime.folder / WORKER_JS.name
    return [str(script), runtime.package]


def how_it_ended(status: int, stderr: str) -> str:
    """Return the name of the signal, or the last error that a worker printed, without colors and our folder."""
    plain = COLOR.sub("", stderr).replace(f"{HERE.parents[1]}/", "")
    lines = [line.strip() for line in plain.splitlines() if line.strip()] or [""]
    last = next((line for line in reversed(lines) if ERROR.search(line)), lines[-1])
    if status < 0:
        name = signal.Signals(-status).name
        return f"{name}: {last}" if last else name
    return last or f"exit status {status}, without results"
