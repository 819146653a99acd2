"""Runs a Core ML package: on macOS with Core ML, elsewhere with an interpreter. Importing it imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np

from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.functions.running import Function, Predict, open_functions, probes_inside
from morvit_deploy.machine.this import checked_threads

if TYPE_CHECKING:
    from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage

IMAGE = "image"
INTERPRETED = "an interpreter of Core ML's operators: Core ML itself runs on macOS only"


def open_coreml(
    folder: Path,
    manifest: Manifest,
    threads: int | None,
    probes: bool = False,
    bucket: str | None = None,
    *,
    interpreted: bool = False,
) -> Runner:
    """The runner of a bundle whose files have been checked; with `bucket`, every image in that bucket.

    With `probes` it also returns the values inside. `threads` are the interpreter's, None: one if the model is
    small; Core ML has its own. `interpreted` uses the interpreter on macOS too, to compare Core ML with it.
    """
    if not any(Path(file.path).is_relative_to(PACKAGE) for file in manifest.files):
        raise BundleError(f"{folder / 'manifest.json'} does not list {PACKAGE}; export it again")
    here = native() and not interpreted
    load = _native(folder, manifest) if here else _interpreted(folder, manifest, threads)
    load = _fed(load, manifest.input == "uint8")
    form = CoremlForm.of(manifest)

    def function(name: str) -> Function:
        wanted = probes_inside(manifest, name) if probes else []
        runtime = "Core ML" if native() else INTERPRETED
        return Function(manifest, load(name), wanted, layout=form.layout, select=form.select, runtime=runtime)

    return open_functions(folder, manifest, form.functions, bucket, function)


def open_interpreted(folder: Path, manifest: Manifest, bucket: str | None) -> Runner:
    """The interpreter, also on a Mac, so that Core ML is not compared with itself."""
    return open_coreml(folder, manifest, None, bucket=bucket, interpreted=True)


def native() -> bool:
    """Is Core ML available? Only on macOS."""
    return sys.platform == "darwin"


def _fed(load: Callable[[str], Predict], pixels: bool) -> Callable[[str], Predict]:
    """The same functions, which take pixels (1, height, width, 3) as an image (1, 3, height, width)."""

    def load_fed(name: str) -> Predict:
        predict = load(name)

        def run(feeds: Arrays, probes: list[str]) -> Arrays:
            if IMAGE in feeds:
                turned = np.ascontiguousarray(feeds[IMAGE].transpose(0, 3, 1, 2), dtype=np.float32)
                feeds = feeds | {IMAGE: turned}
            return predict(feeds, probes)

        return run

    return load_fed if pixels else load


def _interpreted(folder: Path, manifest: Manifest, wanted: int | None) -> Callable[[str], Predict]:
    from morvit_deploy.model.threads import is_small, using_threads

    threads = 1 if wanted is None and is_small(manifest.config) else checked_threads(wanted)
    package = _read(folder / PACKAGE)

    def load(function: str) -> Predict:
        if function not in package.functions:
            raise BundleError(f"{folder / PACKAGE} has no function {function!r}; export it again")

        def run(feeds: Arrays, probes: list[str]) -> Arrays:
            with using_threads(threads):
                return package.run(function, feeds, keep=probes)

        return run

    return load


def _read(path: Path) -> MilPackage:
    """The package, shared by all runners that are open: `verify` opens every bucket."""
    from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage

    changed = tuple((file, file.stat().st_mtime_ns) for file in sorted(path.rglob("*")))
    if (package := _OPEN.get(changed)) is None:
        package = _OPEN[changed] = MilPackage(path)
    return package


_OPEN: WeakValueDictionary[object, MilPackage] = WeakValueDictionary()


def _native(folder: Path, manifest: Manifest) -> Callable[[str], Predict]:
    from morvit_deploy.exporters.coreml.native import load_native

    return load_native(folder / PACKAGE, several=manifest.plan.adaptive, pixels=manifest.input == "uint8")
