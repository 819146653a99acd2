"""Builds engines on the device in a separate process, and passes on its events. No numpy."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.child import how, quoted
from morvit_deploy.agent.core.faults import AgentError, Lacking
from morvit_deploy.agent.trt.build import MODULES, BuildError, load_tensorrt, this_device

SHARED = "weights.bin"  # of graphs in several folders of a bundle: sent once


class Builder:
    """Builds one folder at a time in a child process."""

    def __init__(self, command: list[str], tell: Callable[[dict[str, Any]], None]) -> None:
        self._command, self._tell = command, tell
        self._process: subprocess.Popen[str] | None = None

    def build(self, folder: Path, options: list[str]) -> dict[str, Any]:
        """Build a folder's recipe; returns the record of its engines. AgentError with what TensorRT reports."""
        with tempfile.TemporaryFile() as complaints:
            self._process = subprocess.Popen(
                [*self._command, str(folder), *options, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                universal_newlines=True,
                encoding="utf-8",
                errors="replace",
            )
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                last = [event for event in map(self._heard, lines) if event is not None][-1:]
            status = self._process.wait()
            if last and last[0]["event"] == "error":
                raise Lacking(last[0]["message"])
            if status != 0 or not last or last[0]["event"] != "done":
                complaints.seek(0)
                said = quoted(complaints.read().decode("utf-8", "replace"))
                raise AgentError(
                    f"the build on the device failed: {how(status)}; it wrote to stderr:\n{said}"
                )
        record: dict[str, Any] = json.loads((folder / last[0]["record"]).read_text(encoding="utf-8"))
        return record

    def kill(self) -> None:
        """Stop the build that is running, if any."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _heard(self, line: str) -> dict[str, Any] | None:
        """Pass on an event and return it; None for anything else that a library prints."""
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                if event["event"] not in ("error", "done"):
                    self._tell(event)
                return event
        return None


def check_builder(flavor: str | None, *, strict: bool) -> dict[str, Any]:
    """Flavor, version and GPU as a record of engines has them. Lacking names what to install.

    With `strict` only the named flavor counts; otherwise the other one is used where it is not installed.
    """
    try:
        try:
            used, trt = load_tensorrt(flavor)
        except BuildError:
            if strict or flavor is None:
                raise
            used, trt = load_tensorrt(None)
    except BuildError as error:
        others = [name for name in MODULES if strict and name != flavor and _is_installed(name)]
        also = "; or build with what is installed: " + " or ".join(f"--flavor {name}" for name in others)
        raise Lacking(f"{error}{also if others else ''}; --python names another interpreter") from None
    return {
        "flavor": used,
        "tensorrt": str(trt.__version__),
        "device": this_device(),
        "python": sys.executable,
    }


def share(folder: Path, other: Path) -> None:
    """Hard-link the weights of `folder` into `other`, so that they are sent once; parsers may refuse symlinks."""
    place = other / SHARED
    if other.is_dir() and not place.exists():
        try:
            os.link(str(folder / SHARED), str(place))
        except OSError:  # a file system without links
            shutil.copyfile(str(folder / SHARED), str(place))


def _is_installed(flavor: str) -> bool:
    try:
        load_tensorrt(flavor)
    except BuildError:
        return False
    return True
