"""Options of target `trt`. No torch, no TensorRT."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import get_args

from morvit_deploy.bundle.trt import LACKS, Flavor
from morvit_deploy.errors import ConfigError


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
