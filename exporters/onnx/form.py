"""An ONNX bundle's manifest entry. No torch, no onnx."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm


class OnnxForm(TargetForm):
    """What a program must know before it loads the graphs."""

    # the oldest ONNX Runtime that runs them, such as "1.16"; None in older manifests
    lowest_runtime: Annotated[str, Field(pattern=r"^\d{1,4}(\.\d{1,4}){1,2}$")] | None = None
