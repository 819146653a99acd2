"""Core AI on this Mac through `coreai.runtime`, as `bench` measures it. No torch: benchmark projects carry this file.

Times are taken around the awaited call, with the conversion of arrays: the runtime reports none of its own. Units
other than `cpu` are preferences, which Core AI does not have to follow.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import platform
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreai.names import OLDEST_IOS, TESTED
from morvit_deploy.exporters.functions.devices import Item, ProjectTexts, Reply, macos_item

if TYPE_CHECKING:
    from morvit_deploy.exporters.coreml.sdk.bundle import Package

CORE = "coreai-core"
IN_AN_APP = (
    "measure it in an app with MoRViTKit, such as examples/ios of morvit-deploy; --device mac measures here"
)
NS_PER_MS = 1e6
PREFERRED = {"cpu_ne": "neural_engine", "cpu_gpu": "gpu"}  # names of coreai.runtime.ComputeUnitKind
NO_PLACEMENT = (
    "Core AI reports no placement of operations; record the Core AI instrument in Xcode's Instruments"
)

Result = TypeVar("Result")


class AssetFunction:
    """A function that Core AI has specialized and loaded here."""

    def __init__(self, mac: CoreaiMac, function: str, units: str) -> None:
        self._mac, self._function, self._units = mac, function, units
        self._call: Any = None
        self.load_ms = self.reload()

    def reload(self) -> float:
        begin = perf_counter_ns()
        self._call = self._mac.load(self._function, self._units)
        return (perf_counter_ns() - begin) / NS_PER_MS

    def run(self, feeds: Mapping[str, Any]) -> Reply:
        begin = perf_counter_ns()
        found = self._mac.wait(self._answer(feeds), f"running {self._function} for {self._units}")
        return Reply(found, (perf_counter_ns() - begin) / NS_PER_MS)

    def times(self, feeds: Mapping[str, Any], runs: int) -> list[float]:
        return [self.run(feeds).ms for _ in range(runs)]

    def close(self) -> None:
        self._call = None

    async def _answer(self, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        array = self._mac.runtime.NDArray
        known = self._call.desc.input_names  # a bucket may leave a carried value unread
        taken = {name: array(np.ascontiguousarray(feeds[name])) for name in known}
        return {name: np.array(value.numpy()) for name, value in (await self._call(taken)).items()}


class CoreaiMac:
    """This Mac."""

    device = "mac"
    together = True

    def __init__(self, package: Package) -> None:
        import coreai.runtime

        self.package = package
        self.runtime: Any = coreai.runtime
        self._loop = asyncio.new_event_loop()

    def open(self, function: str, units: str) -> AssetFunction:
        return AssetFunction(self, function, units)

    def load(self, function: str, units: str) -> Any:
        """The function, specialized for `units`; TargetError when Core AI refuses it."""
        model = self.wait(
            self.runtime.AIModel.load(self.package.path, self._options(units)), f"loading for {units}"
        )
        if function not in model.function_names:
            raise TargetError(f"{self.package.path} has no function {function!r}; export it again")
        return model.load_function(function)

    def picture(self, pixels: NDArray[np.uint8]) -> Any:
        return pixels[None] if self.package.input == "uint8" else self.package.array(pixels)

    def placement(self, function: str, units: str) -> NoReturn:
        raise TargetError(NO_PLACEMENT)

    def wait(self, task: Coroutine[Any, Any, Result], what: str) -> Result:
        """Run a call of the runtime; TargetError when it fails."""
        try:
            return self._loop.run_until_complete(task)
        except (RuntimeError, ValueError, OSError) as error:
            raise TargetError(f"Core AI failed at {what}: {error}") from None

    def close(self) -> None:
        """End the event loop."""
        self._loop.close()

    def _options(self, units: str) -> Any:
        options = self.runtime.SpecializationOptions
        if units == "cpu":
            return options.cpu_only()
        if units == "all":
            return options.default()
        kind = getattr(self.runtime.ComputeUnitKind, PREFERRED[units])()
        return options.from_preferred_compute_unit_kind(kind)


class CoreAiRuntime:
    """The `AppleRuntime` of assets."""

    expected = "morvit_deploy.exporters.coreai.run:open_bucket"
    project = ProjectTexts(
        expected="computed by Core AI's Python runtime on the CPU, where the project was written",
        requirements=f"{CORE}{TESTED[CORE]}\n",
        note="""\
Compute units other than `cpu` are preferences: Core AI may run parts elsewhere and does not report where; the Core AI
instrument of Xcode shows it. Times include the conversion of arrays. No tool sends a Core AI asset to an iPhone:
measure it there in an app, as `docs/coreai.md` of morvit-deploy describes.""",
        carried=tuple(f"morvit_deploy.exporters.coreai{name}" for name in ("", ".mac", ".names")),
    )

    def needed(self, package: Package | None, device: str, wanted: str | None) -> tuple[list[Item], None]:
        """What measuring an asset needs; a phone runs it only in an app."""
        return needed_items(device, platform.mac_ver()[0] or None, _installed()), None

    @contextmanager
    def opened(self, package: Package, phone: object, team: str | None) -> Iterator[CoreaiMac]:
        """Core AI here; imports `coreai.runtime`."""
        mac = CoreaiMac(package)
        try:
            yield mac
        finally:
            mac.close()


def needed_items(device: str, macos: str | None, core: str | None) -> list[Item]:
    """Of a system with this macOS and this `coreai-core`; None: it has none."""
    install = f'python -m pip install "{CORE}{TESTED[CORE]}"'
    items = [
        macos_item(OLDEST_IOS, "Core AI", macos, f"{platform.system()} {platform.release()}"),
        Item(
            CORE, f"{core}; {TESTED[CORE]} is tested" if core else "not installed", core is not None, install
        ),
    ]
    if device == "iphone":
        items.append(Item("a runner of Core AI assets for iPhones", "there is none", False, IN_AN_APP))
    return items


def _installed() -> str | None:
    try:
        return importlib.metadata.version(CORE)
    except importlib.metadata.PackageNotFoundError:
        return None


RUNTIME = CoreAiRuntime()
