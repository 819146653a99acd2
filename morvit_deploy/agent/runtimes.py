"""The agent's runtimes by target: module of the runner, requirements, and how to install them.

A runner's module defines `open_recipe(folder, recipe, threads, bucket) -> Runner`. Add a target as a line in
RUNTIMES.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.agent.core.faults import AgentError, Lacking
from morvit_deploy.agent.core.releases import is_older, not_importable

if TYPE_CHECKING:  # these need numpy, which `check_runtime` looks for
    from morvit_deploy.agent.core.recipe import Recipe
    from morvit_deploy.agent.core.running import Runner

CROWD = 4  # threads a core; more is taken for a typing error


@dataclass(frozen=True)
class Runtime:
    """What one target runs on."""

    module: str  # of its runner
    imports: str | None  # the library's module; None: `check_builder` looks for it
    least: str  # oldest release that reads exported bundles
    install: str  # command for the device


RUNTIMES = {
    "trt": Runtime("morvit_deploy.agent.trt.run", None, "", "sudo apt-get install python3-numpy"),
    "onnx": Runtime(
        "morvit_deploy.agent.run_ort",
        "onnxruntime",
        "1.16",  # a bundle may require a newer one
        '{python} -m pip install numpy "onnxruntime>={least}"',
    ),
}


def load_runner(target: str) -> Callable[[Path, Recipe, int, str | None], Runner]:
    """`open_recipe` of a target; imports its runtime."""
    opener: Callable[[Path, Recipe, int, str | None], Runner] = import_module(
        _known(target).module
    ).open_recipe
    return opener


def check_runtime(target: str, required: Mapping[str, str] | None = None) -> dict[str, str]:
    """Versions of Python, numpy and the target's runtime here; Lacking names what to install.

    `required` is what the bundles require: module to its oldest release.
    """
    runtime = _known(target)
    least = (required or {}).get(runtime.imports or "", runtime.least)
    fix = (
        f"; on the device run `{runtime.install.format(python=sys.executable, least=least)}`, "
        "or name an interpreter that has it with --python"
    )
    found = {"python": platform.python_version()}
    for name in ("numpy", *([runtime.imports] if runtime.imports else [])):
        try:
            found[name] = str(import_module(name).__version__)
        except ImportError as error:
            raise Lacking(f"{sys.executable} on the device {not_importable(name, error)}{fix}") from None
    version = found[runtime.imports or "numpy"]
    if is_older(version, least):
        raise Lacking(f"the device has {runtime.imports} {version}, expected {least} or newer{fix}")
    return found


def checked_threads(wanted: int | None, cores: int) -> int:
    """`wanted`, or one for each core; Lacking for more than CROWD a core."""
    if wanted is not None and not 1 <= wanted <= CROWD * cores:
        raise Lacking(
            f"got {wanted} threads, expected 1 to {CROWD * cores}: this process may use {cores} cores"
        )
    return wanted or cores


def _known(target: str) -> Runtime:
    if target not in RUNTIMES:
        raise AgentError(f"got target {target!r}; the agent runs: {', '.join(RUNTIMES)}")
    return RUNTIMES[target]
