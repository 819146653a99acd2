"""Options of target `trt`. No torch, no TensorRT."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help, TargetOptions
from morvit_deploy.exporters.trt.names import LACKS, Flavor

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request


@dataclass(frozen=True)
class TrtOptions(TargetOptions):
    """Options of target `trt`."""

    flavor: Annotated[
        Flavor | None,
        Help("tensorrt, or rtx: TensorRT-RTX, which builds without a GPU (default: what is installed)."),
    ] = None
    compute_capability: Annotated[
        tuple[str, ...],
        Help(
            "rtx: a GPU to build for; may be repeated (default: this machine's GPU, or without one every GPU from "
            "Ampere on).",
            metavar="SM89",
        ),
    ] = ()
    hardware_compatible: Annotated[bool, Help("tensorrt: engines also run on other GPUs from Ampere on.")] = (
        False
    )
    version_compatible: Annotated[
        bool, Help("tensorrt: engines also run with newer minor versions of TensorRT.")
    ] = False
    max_batch: Annotated[
        int | None,
        Help("Maximum images per run with --batch dynamic (default: 32).", least=1),
    ] = None
    workspace_mib: Annotated[
        int | None,
        Help("Workspace memory of the builder in MiB (default: TensorRT's own).", least=1),
    ] = None

    def __post_init__(self) -> None:
        """ConfigError for an invalid value, or one that the named flavor does not support."""
        super().__post_init__()
        for name in self.compute_capability:
            if not re.fullmatch(r"SM\d{2,3}", name):
                raise ConfigError(f"compute_capability: got {name!r}, expected SM and a number, as SM89")
        for name in ("max_batch", "workspace_mib"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise ConfigError(f"{name}: got {value!r}, expected a positive number")
        if self.flavor is not None:
            self.check_flavor(self.flavor)

    def check_flavor(self, flavor: Flavor) -> None:
        """ConfigError for an option that this flavor does not support."""
        for name, instead in LACKS[flavor].items():
            if getattr(self, name):
                raise ConfigError(f"{name}: not supported by flavor {flavor!r}: {instead}")

    def check(self, request: Request) -> None:
        if request.int8_flavor == "cpu":
            raise ConfigError("int8_flavor: got 'cpu'; TensorRT supports only symmetric int8: leave it out")
        if self.max_batch is not None and request.batch != "dynamic":
            raise ConfigError(
                f"max_batch: got {self.max_batch} with batch {request.batch}; it is for batch 'dynamic'"
            )


class TrtKeywords(TypedDict, total=False):
    """The same as keywords of `export`."""

    flavor: Flavor | None
    compute_capability: tuple[str, ...]
    hardware_compatible: bool
    version_compatible: bool
    max_batch: int | None
    workspace_mib: int | None
