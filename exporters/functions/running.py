"""Runs the functions of a file under the names, shapes and types that bundles of every target have. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays, Runner
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import HostDispatch
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.functions.names import MAIN, STEM, plain_name
from morvit_deploy.model.choices import Layout, Select
from morvit_deploy.verifying.probes import plain

# from inputs and names of values inside to return too, to the outputs, by their names in the file
Predict: TypeAlias = Callable[[Arrays, list[str]], Arrays]

# as in bundles of other targets; these functions return neither booleans nor bytes
TYPES = {"overflow": np.bool_, "runs": np.bool_, "depth": np.uint8}
CHANNELS_FIRST = 4  # axes of values inside in layout bc1s; in bsd they have at most two, without a batch axis


class Function(Runner):
    """One function of a file; `free` is called when it is closed."""

    def __init__(
        self,
        manifest: Manifest,
        predict: Predict,
        probes: Sequence[str],
        *,
        layout: Layout,
        select: Select,
        runtime: str,
        free: Callable[[], None] = lambda: None,
    ) -> None:
        self.manifest, self.runtime = manifest, runtime
        self._predict, self._probes, self._layout, self._select = predict, list(probes), layout, select
        ports = [*manifest.outputs, *manifest.carried]
        self._names = {plain_name(name): name for name in (*(port.name for port in ports), *probes)}
        self._free = free

    def run(self, feeds: Arrays) -> Arrays:
        inputs = {plain_name(name): value for name, value in feeds.items()}
        found = self._predict(inputs, [plain_name(name) for name in self._probes])
        out = {self._names[name]: value for name, value in found.items() if name in self._names}
        out |= {name: self.plain(name, out[name]) for name in self._probes if name in out}
        return {name: value.astype(_type(name, value), copy=False) for name, value in out.items()}

    def close(self) -> None:
        self._free()
        self._free = lambda: None

    def plain(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """A value inside in the layout of other targets; BundleError when its layout is not the manifest's."""
        if (value.ndim == CHANNELS_FIRST) != (self._layout == "bc1s"):
            raise BundleError(
                f"value {name!r} of the package has shape {list(value.shape)}, which is not of layout "
                f"{self._layout!r}; the manifest was edited: export it again"
            )
        return plain(name, value, self._layout, self._select)


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
        carried = {port.name: begun[port.name] for port in self.stem.manifest.carried}
        seen = {name: self.stem.plain(name, value) for name, value in carried.items()}
        return begun | seen | self.trunk.run(carried) | {"bucket": np.full(1, self.number, dtype=np.int32)}

    def close(self) -> None:
        self.stem.close()
        self.trunk.close()


def open_functions(
    folder: Path,
    manifest: Manifest,
    functions: Sequence[str],
    bucket: str | None,
    load: Callable[[str], Function],
) -> Runner:
    """The runner of a bundle's functions; with `bucket`, every image in that bucket.

    BundleError for a function that the manifest does not list.
    """

    def function(name: str) -> Function:
        if name not in functions:
            raise BundleError(f"{folder}: its manifest lists no function {name!r}; export it again")
        return load(name)

    if not manifest.plan.adaptive:
        return function(MAIN)
    if bucket is not None:
        return Forced(function(STEM), function(bucket), number=functions.index(bucket) - 1)
    return HostDispatch(manifest, function(STEM), function)


def probes_inside(manifest: Manifest, function: str) -> list[str]:
    """Values inside one function, by their names without the function's."""
    parts = [name.rpartition("/") for name in manifest.probes]
    return [name for owner, _, name in parts if owner == ("" if function in (MAIN, STEM) else function)]
