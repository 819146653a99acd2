"""The runtimes of the agent: where their runners are, what they need, and how to install it.

A runner's module has `open_recipe(folder, recipe, threads, bucket) -> Runner`. A further target is a line here.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.agent.core.faults import AgentError, Lacking

if TYPE_CHECKING:  # they need numpy, which `check_runtime` looks for
    from morvit_deploy.agent.core.recipe import Recipe
    from morvit_deploy.agent.core.running import Runner

CROWD = 4  # threads a core beyond which a request is a slip of the keyboard


@dataclass(frozen=True)
class Runtime:
    """What one target runs on."""

    module: str  # of its runner
    imports: str | None  # the library's own module; None: `building.check_builder` looks for it
    least: tuple[int, ...]  # version that reads what this package exports
    install: str  # what a person runs on the device


RUNTIMES = {
    "trt": Runtime("morvit_deploy.agent.trt.run", None, (), "sudo apt-get install python3-numpy"),
    "onnx": Runtime(
        "morvit_deploy.agent.run_ort",
        "onnxruntime",
        (1, 18),  # the first that reads IR version 10, which opset 20 graphs are written in
        '{python} -m pip install numpy "onnxruntime>=1.18"',
    ),
}


def load_runner(target: str) -> Callable[[Path, Recipe, int, str | None], Runner]:
    """`open_recipe` of a target; imports its runtime."""
    open_recipe: Callable[[Path, Recipe, int, str | None], Runner] = import_module(
        _known(target).module
    ).open_recipe
    return open_recipe


def check_runtime(target: str) -> dict[str, str]:
    """Versions of Python, numpy and the target's runtime here; Lacking names what to install."""
    runtime = _known(target)
    fix = (
        f"; on the device run `{runtime.install.format(python=sys.executable)}`, "
        "or name an interpreter that has it with --python"
    )
    found = {"python": platform.python_version()}
    for name in ("numpy", *([runtime.imports] if runtime.imports else [])):
        try:
            found[name] = str(import_module(name).__version__)
        except ImportError as error:
            raise Lacking(f"{sys.executable} on the device cannot import {name}: {error}{fix}") from None
    version = found[runtime.imports or "numpy"]
    if _numbers(version) < runtime.least:
        wanted = ".".join(map(str, runtime.least))
        raise Lacking(f"the device has {runtime.imports} {version}, expected {wanted} or newer{fix}")
    return found


def checked_threads(wanted: int | None, cores: int) -> int:
    """`wanted`, or every core there is; Lacking for more threads than CROWD a core."""
    if wanted is not None and not 1 <= wanted <= CROWD * cores:
        raise Lacking(
            f"got {wanted} threads, expected 1 to {CROWD * cores}: the device has {cores} cores for this process"
        )
    return wanted or cores


def _known(target: str) -> Runtime:
    if target not in RUNTIMES:
        raise AgentError(f"got target {target!r}; the agent runs: {', '.join(RUNTIMES)}")
    return RUNTIMES[target]


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts[:3] if part.isdigit())


def environment() -> dict[str, Any]:
    """Of a worker: a file in the current folder shadows no module."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}
