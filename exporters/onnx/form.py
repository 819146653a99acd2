"""An ONNX bundle's manifest entry. No torch, no onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest


class OnnxForm(TargetForm):
    """What a program must know before it loads the graphs."""

    fast_tail: bool = False  # products of few rows read an 8-bit copy of their weights
    # the oldest ONNX Runtime that runs them, such as "1.16"; None in older manifests
    lowest_runtime: Annotated[str, Field(pattern=r"^\d{1,4}(\.\d{1,4}){1,2}$")] | None = None

    @property
    def exact(self) -> bool:
        return not self.fast_tail

    @property
    def said(self) -> str:
        return "fast tail" if self.fast_tail else ""

    def problems(self, manifest: Manifest) -> list[str]:
        if not self.fast_tail or (manifest.precision == "fp32" and manifest.batch != "dynamic"):
            return []
        return [
            f"fast_tail: in {manifest.precision}, batch {manifest.batch}; expected fp32 and a fixed batch"
        ]
