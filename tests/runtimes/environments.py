"""Environments of their own for the runtimes, made once in `build/runtimes/`: a venv, or a folder of npm.

    python tests/runtimes/environments.py                          the oldest, which `make test` runs
    python tests/runtimes/environments.py onnxruntime==1.17.3      another

A package is installed without its dependencies, apart from those that it imports.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from runtimes import OLDEST, Runtime, chosen

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "runtimes"
BUNDLE_JS, WORKER_JS = ROOT / "morvit_deploy" / "bundle" / "web" / "bundle.js", HERE / "worker.mjs"
MADE_OF = "made-of.txt"  # the last file that is written: what the environment has
PATIENCE_S = 600  # to install a package
OLDEST_NODE = 18
ERROR = re.compile("error(?!.*complete log)", re.IGNORECASE)


class NotRun(Exception):
    """Why a runtime cannot be had here, in a few words."""


class Unsuited(NotRun):
    """No package manager could change it: this machine has no interpreter for the runtime."""


def environment(runtime: Runtime, folder: Path = FOLDER) -> list[str]:
    """Return the first words of a command in a runtime's environment, which is made if it is missing.

    They are the interpreter, and for node nothing else: its packages lie in the folder of the script that is run.
    Raises NotRun when it cannot be made.
    """
    home = folder / runtime.folder
    interpreter = _node() if runtime.pythons is None else python_for(runtime)
    if not is_made(runtime, folder):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _install(runtime, interpreter, home)
        (home / MADE_OF).write_text("\n".join(runtime.pins))
    if runtime.pythons is not None:
        return [str(home / "bin" / "python")]
    shutil.copy(WORKER_JS, home)
    shutil.copy(BUNDLE_JS, home / "bundle.mjs")  # the extension says that it is a module
    return [interpreter]


def is_made(runtime: Runtime, folder: Path = FOLDER) -> bool:
    """Whether the environment exists and has the packages that are pinned now."""
    marker = folder / runtime.folder / MADE_OF
    return marker.is_file() and marker.read_text() == "\n".join(runtime.pins)


def python_for(runtime: Runtime) -> str:
    """Return an interpreter that has a wheel of the runtime: this one, or the newest on PATH. Raises Unsuited."""
    assert runtime.pythons is not None
    first, last = runtime.pythons
    if first <= sys.version_info.minor <= last:
        return sys.executable
    for minor in range(last, first - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            return found
    raise Unsuited(f"needs Python 3.{first} to 3.{last}; none is on PATH")


def _node() -> str:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Unsuited(f"{program} is not on PATH")
    node = str(shutil.which("node"))
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    if not version.startswith("v") or int(version[1:].partition(".")[0]) < OLDEST_NODE:
        raise Unsuited(f"node {version or 'unknown'}, needs {OLDEST_NODE} or newer")
    return node


def _install(runtime: Runtime, interpreter: str, home: Path) -> None:
    if runtime.pythons is None:
        (home / "package.json").write_text('{"private": true}\n')
        # the scripts of onnxruntime-node fetch libraries for GPUs
        _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *runtime.pins], home)
        return
    _run([interpreter, "-m", "venv", "--without-pip", str(home)], home)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(home / "bin" / "python"),
        "--disable-pip-version-check",
    ]
    _run([*pip, "install", "--quiet", "--no-deps", *runtime.pins], home)


def _run(command: list[str], folder: Path) -> None:
    """Run a package manager; NotRun with its last complaint where it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise NotRun(f"{Path(command[0]).name} took longer than {PATIENCE_S} s") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if ERROR.search(line)]
        last = (complaints or [f"exit status {done.returncode}"])[-1].strip()
        raise NotRun(f"its packages could not be installed, perhaps for want of a network: {last}")


def clean_environ() -> dict[str, str]:
    """Return the environment variables without those that would put other packages on a path."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "NODE_PATH")}


def main() -> int:
    """Make the environments that are named; 0 also where this machine has no interpreter for one."""
    try:
        runtimes = chosen(sys.argv[1:] or [OLDEST.name], [])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for runtime in runtimes:
        try:
            environment(runtime)
        except Unsuited as reason:
            print(f"{runtime.name} is not tested: {reason}", file=sys.stderr)
        except NotRun as reason:
            print(f"error: {runtime.name}: {reason}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
