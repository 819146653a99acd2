"""A TensorRT bundle's manifest entry. No torch, no TensorRT."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.exporters.trt.names import Flavor


class TrtForm(TargetForm):
    """The recipe's settings; what was built, and where, is in `engines.json` beside the engines."""

    flavor: Flavor
    compute_capability: tuple[str, ...] = ()
    hardware_compatible: bool = False
    version_compatible: bool = False
    max_batch: Annotated[int, Field(ge=1)] | None = None  # of a dynamic batch

    @property
    def said(self) -> str:
        return f"flavor {self.flavor}"
