"""What a TensorRT bundle is asked to be, and its manifest entry. No torch, no TensorRT."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args

from pydantic import Field

from morvit_deploy.config import Strict
from morvit_deploy.errors import ConfigError

Flavor = Literal["tensorrt", "rtx"]

BUILD = "build"  # the bundle's folder with the graphs, their recipe and the engines
ALONE = "alone"  # beside it on a device: engines of one bucket each, where the bundle's own chooses
RECIPE, SCRIPT = "build.json", "build.py"
TIMING_CACHE = "timing.cache"
LARGEST_BATCH = 32  # of a dynamic batch unless another is asked for: what a session runs at a time

# what a flavor's builder does not have, by option: the sentence says what it does instead
LACKS: dict[Flavor, dict[str, str]] = {
    "tensorrt": {
        "compute_capability": "TensorRT builds for the GPU that it runs on; build on the device, or use flavor 'rtx'",
    },
    "rtx": {
        "hardware_compatible": "TensorRT-RTX's engines run on every GPU from Ampere on as they are; name GPUs with "
        "compute_capability to narrow it",
        "version_compatible": "TensorRT-RTX has no lean runtime: its engines run with the version that built them",
    },
}


@dataclass(frozen=True)
class TrtAsked:
    """Options of target `trt`."""

    flavor: Flavor | None = None  # None: what is installed here
    compute_capability: tuple[str, ...] = ()  # rtx: the GPUs, as SM89; none: this machine's, else every one
    hardware_compatible: bool = False  # tensorrt: also for other GPUs from Ampere on
    version_compatible: bool = False  # tensorrt: also for newer versions of the same major one
    max_batch: int | None = None  # images of a dynamic batch
    workspace_mib: int | None = None  # memory that the builder may try kernels in

    def __post_init__(self) -> None:
        """ConfigError for a value that no engine can have, or that the named flavor does not offer."""
        if self.flavor not in (None, *get_args(Flavor)):
            raise ConfigError(f"flavor: got {self.flavor!r}, expected one of {', '.join(get_args(Flavor))}")
        for name in self.compute_capability:
            if not re.fullmatch(r"SM\d{2,3}", name):
                raise ConfigError(f"compute_capability: got {name!r}, expected SM and a number, as SM89")
        for name in ("max_batch", "workspace_mib"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise ConfigError(f"{name}: got {value!r}, expected a positive number")
        if self.flavor is not None:
            self.check(self.flavor)

    def check(self, flavor: Flavor) -> None:
        """ConfigError for an option that this flavor's builder does not have."""
        for name, instead in LACKS[flavor].items():
            if getattr(self, name):
                raise ConfigError(f"{name}: flavor {flavor!r} does not have it: {instead}")

    @classmethod
    def names(cls) -> set[str]:
        """What can be asked."""
        return {field.name for field in fields(cls)}


class TrtForm(Strict):
    """What the recipe asks of the builder; what was built, and by whom, is in `engines.json` beside the engines."""

    flavor: Flavor
    compute_capability: tuple[str, ...] = ()
    hardware_compatible: bool = False
    version_compatible: bool = False
    max_batch: Annotated[int, Field(ge=1)] | None = None  # of a dynamic batch
