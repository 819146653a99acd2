"""Runs a Core ML package: on macOS with Core ML, elsewhere with an interpreter. Importing it imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import HostDispatch
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.contract.names import MAIN, PACKAGE, STEM
from morvit_deploy.exporters.coreml.sdk.load import mil_name
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.verifying.probes import plain

if TYPE_CHECKING:
    from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
    from morvit_deploy.exporters.coreml.native import Predict

# as in bundles of other targets; Core ML returns neither booleans nor bytes
TYPES = {"overflow": np.bool_, "runs": np.bool_, "depth": np.uint8}
CHANNELS_FIRST = 4  # axes of values inside in layout bc1s; in bsd they have at most two, without a batch axis
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

    With `probes` it also returns the values inside. `threads` are the interpreter's; Core ML has its own.
    `interpreted` uses the interpreter on macOS too, to compare Core ML with it.
    """
    if not any(Path(file.path).is_relative_to(PACKAGE) for file in manifest.files):
        raise BundleError(f"{folder / 'manifest.json'} does not list {PACKAGE}; export it again")
    here = native() and not interpreted
    load = _native(folder, manifest) if here else _interpreted(folder, checked_threads(threads))
    names = CoremlForm.of(manifest).functions

    def function(name: str) -> Function:
        if name not in names:
            raise BundleError(f"{folder}: its manifest lists no function {name!r}; export it again")
        wanted = _probes(manifest, name) if probes else []
        return Function(manifest, load(name), wanted)

    if not manifest.plan.adaptive:
        return function(MAIN)
    if bucket is not None:
        return Forced(function(STEM), function(bucket), number=names.index(bucket) - 1)
    return HostDispatch(manifest, function(STEM), function)


def native() -> bool:
    """Is Core ML available? Only on macOS."""
    return sys.platform == "darwin"


class Function(Runner):
    """One function of a package under the names, shapes and types that bundles of every target have."""

    def __init__(self, manifest: Manifest, predict: Predict, probes: list[str]) -> None:
        self.runtime = "Core ML" if native() else INTERPRETED
        self._manifest, self._predict, self._form = manifest, predict, CoremlForm.of(manifest)
        ports = [*manifest.outputs, *manifest.carried]
        self._names = {mil_name(name): name for name in (*(port.name for port in ports), *probes)}
        self._probes = probes

    def run(self, feeds: Arrays) -> Arrays:
        inputs = {mil_name(name): self._fed(name, value) for name, value in feeds.items()}
        found = self._predict(inputs, [mil_name(name) for name in self._probes])
        out = {self._names[name]: value for name, value in found.items() if name in self._names}
        out |= {name: self.plain(name, out[name]) for name in self._probes if name in out}
        return {name: value.astype(_type(name, value), copy=False) for name, value in out.items()}

    def plain(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """A value inside in the layout of other targets; BundleError when its layout is not the manifest's."""
        if (value.ndim == CHANNELS_FIRST) != (self._form.layout == "bc1s"):
            raise BundleError(
                f"value {name!r} of the package has shape {list(value.shape)}, which is not of layout "
                f"{self._form.layout!r}; the manifest was edited: export it again"
            )
        return plain(name, value, self._form.layout, self._form.select)

    def _fed(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """Pixels (1, height, width, 3) as an image (1, 3, height, width)."""
        if name == "image" and self._manifest.input == "uint8":
            return np.ascontiguousarray(value.transpose(0, 3, 1, 2), dtype=np.float32)
        return value


def _type(name: str, value: NDArray[Any]) -> Any:
    """Type of a value in bundles of other targets."""
    return np.bool_ if name.endswith(".runs") else TYPES.get(name, value.dtype)


class Forced(Runner):
    """The stem and one bucket's function, whatever bucket an image needs."""

    def __init__(self, stem: Function, trunk: Function, number: int) -> None:
        self.stem, self.trunk, self.number = stem, trunk, number
        self.runtime = stem.runtime

    def run(self, feeds: Arrays) -> Arrays:
        begun = self.stem.run(feeds)
        carried = {port.name: begun[port.name] for port in self.stem._manifest.carried}
        seen = {name: self.stem.plain(name, value) for name, value in carried.items()}
        return begun | seen | self.trunk.run(carried) | {"bucket": np.full(1, self.number, dtype=np.int32)}


def _probes(manifest: Manifest, function: str) -> list[str]:
    """Values inside one function, by their names without the function's."""
    parts = [name.rpartition("/") for name in manifest.probes]
    return [name for owner, _, name in parts if owner == ("" if function in (MAIN, STEM) else function)]


def _interpreted(folder: Path, threads: int) -> Callable[[str], Predict]:
    from morvit_deploy.model.threads import using_threads

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
