"""Runs one image through a package's functions: the stem, its bucket's, and `full` after an overflow.

A `Backend` runs the functions: Core ML here or on a phone, or a test's own. No torch, no coremltools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import STEM, Package
from morvit_deploy.exporters.functions.devices import Reply as Reply
from morvit_deploy.measuring.apple.placement import PlacedOp

# the command line's names of compute units, and Core ML's
UNITS = {"all": "ALL", "cpu_ne": "CPU_AND_NE", "cpu_gpu": "CPU_AND_GPU", "cpu": "CPU_ONLY"}
COMPARE = "compare"  # all of them, in turn
NEURAL_ENGINE = ("all", "cpu_ne")  # units that include the Neural Engine


class Function(Protocol):
    """A function loaded for some compute units."""

    load_ms: float  # of this first load, including specialisation unless the system has cached it

    def run(self, feeds: Mapping[str, Any]) -> Reply:
        """One run."""

    def times(self, feeds: Mapping[str, Any], runs: int) -> list[float]:
        """Milliseconds of `runs` runs of the same inputs."""

    def reload(self) -> float:
        """Load it again, from the system's cache; ms."""

    def close(self) -> None:
        """Free it."""


class Backend(Protocol):
    """Where functions run."""

    device: str
    together: bool  # can all compute units be loaded at once, to alternate between them?

    def open(self, function: str, units: str) -> Function:
        """Load a function; TargetError when it cannot be loaded."""

    def picture(self, pixels: NDArray[np.uint8]) -> Any:
        """uint8 (height, width, 3) as this backend's `image` input."""

    def placement(self, function: str, units: str) -> Sequence[PlacedOp]:
        """Where Core ML plans to run each operation."""


@dataclass(frozen=True)
class Prediction:
    """Logits (classes,) of an image, and the total time of its functions, ms."""

    logits: NDArray[Any]
    ms: float
    bucket: str  # that returned the logits
    overflow: bool  # of the predicted bucket
    fed: dict[str, Mapping[str, Any]]  # inputs of each function


def predict(
    package: Package, functions: Mapping[str, Function], image: Any, bucket: str | None = None
) -> Prediction:
    """Run one image as an app does; with `bucket`, in that bucket."""
    fed: dict[str, Mapping[str, Any]] = {}
    feeds, ms, name = {"image": image}, 0.0, bucket or package.plan.buckets[-1].name
    if package.adaptive:
        stem = functions[STEM].run(feeds)
        fed[STEM] = feeds
        ms, feeds = stem.ms, {carried: stem.outputs[carried] for carried in package.carried}
        name = bucket or package.plan.buckets[int(np.ravel(stem.outputs["bucket"])[0])].name
    trunk = package.trunk(name)
    reply = functions[trunk].run(feeds)
    fed[trunk], ms = feeds, ms + reply.ms
    overflow = bool(np.any(reply.outputs.get("overflow", 0))) and bucket is None
    if overflow:
        name = package.plan.buckets[-1].name
        reply = functions[package.trunk(name)].run(feeds)
        fed[package.trunk(name)], ms = feeds, ms + reply.ms
    return Prediction(np.ravel(reply.outputs["logits"]), ms, name, overflow, fed)


def chosen_units(words: Sequence[str]) -> tuple[str, ...]:
    """Names of UNITS in the given order, without duplicates; all of them for none or `compare`."""
    unknown = [word for word in words if word not in (*UNITS, COMPARE)]
    if unknown:
        raise TargetError(
            f"--compute-units: got {', '.join(unknown)}, expected {', '.join(UNITS)}, or {COMPARE} for all of them"
        )
    return tuple(UNITS) if not words or COMPARE in words else tuple(dict.fromkeys(words))
