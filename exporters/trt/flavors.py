"""TensorRT and TensorRT-RTX behind one adapter: which one is used, and what this machine can do with it.

Both build through `agent/trt/build.py`, which a bundle carries as `build.py`. No torch, and neither SDK
is imported before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, get_args

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import LARGEST_BATCH, Flavor
from morvit_deploy.exporters.trt.options import TrtOptions

EVERY = "every GPU of compute capability 8.0, 8.6, 8.9, 12.0 or later"  # RTX's own default


@dataclass(frozen=True)
class Here:
    """A flavor's version and the GPU on this machine."""

    flavor: Flavor
    version: str | None  # None: not installed
    device: dict[str, str] | None  # name and compute_capability of the first GPU

    @property
    def product(self) -> str:
        """Its name, with the version if installed."""
        name = trt_build.PRODUCT[self.flavor]
        return name if self.version is None else f"{name} {self.version}"

    @property
    def builds(self) -> bool:
        """Can engines be built here? RTX needs no GPU for it."""
        return self.version is not None and (self.flavor == "rtx" or self.device is not None)

    @property
    def runs(self) -> bool:
        """Can engines be run here?"""
        return self.version is not None and self.device is not None

    @property
    def why_not(self) -> str:
        """Why engines cannot be built here, and how to change that."""
        if self.version is None:
            return (
                f"{self.product} is not installed here; it comes with `{trt_build.install_line(self.flavor)}`"
            )
        return f"{self.product} builds for the GPU that it runs on, and there is none here"


def is_installed(flavor: str) -> bool:
    """Is the flavor's Python module here?"""
    try:
        return find_spec(trt_build.MODULES[flavor]) is not None
    except ValueError:  # a module that was put in place without a spec
        return True


def load(flavor: str) -> Any:
    """The flavor's module; TargetError with the line that installs it, or for a version that is not supported."""
    try:
        return trt_build.load_tensorrt(flavor)[1]
    except trt_build.BuildError as error:
        raise TargetError(str(error)) from None


def look(flavor: Flavor) -> Here:
    """What this machine has of one flavor. TargetError for an unsupported version."""
    version = str(load(flavor).__version__) if is_installed(flavor) else None
    return Here(flavor, version, trt_build.this_device())


def choose(options: TrtOptions) -> Here:
    """The chosen flavor, else the installed one, TensorRT first; without either, TensorRT.

    ConfigError for an option that the flavor does not support, TargetError for a GPU that it does not build for.
    """
    installed = [flavor for flavor in get_args(Flavor) if is_installed(flavor)]
    flavor: Flavor = options.flavor or (installed or ["tensorrt"])[0]
    options.check_flavor(flavor)
    here = look(flavor)
    unknown = {*options.compute_capability} - {*capabilities(here)}
    if here.version is not None and unknown:
        raise TargetError(
            f"compute_capability: got {', '.join(sorted(unknown))}; {here.product} builds for "
            f"{', '.join(capabilities(here))}"
        )
    if flavor == "rtx" and here.version is not None and not options.compute_capability:
        refused = trt_build.why_not_here(load("rtx"), here.device)
        if refused is not None:
            raise TargetError(refused)
    return here


def capabilities(here: Here) -> list[str]:
    """Names of the GPUs that RTX can build for."""
    if here.flavor != "rtx" or here.version is None:
        return []
    return trt_build.capabilities_of(load("rtx"))


def form_of(options: TrtOptions, here: Here, dynamic: bool) -> TrtForm:
    """The recipe's settings; without a named GPU, rtx builds for this machine's, or for all from Ampere on."""
    named = options.compute_capability
    if here.runs and here.flavor == "rtx" and not named and here.device is not None:
        named = ("SM" + here.device["compute_capability"].replace(".", ""),)  # `choose` has checked it
    return TrtForm(
        flavor=here.flavor,
        compute_capability=named,
        hardware_compatible=options.hardware_compatible,
        version_compatible=options.version_compatible,
        max_batch=(options.max_batch or LARGEST_BATCH) if dynamic else None,
    )
