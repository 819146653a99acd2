"""A Core ML package's manifest entry. No torch, no coremltools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.graph.style.options import Attention, Layout, Select

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest

Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]
Ios = Literal[17, 18]

PACKAGE = "MoRViT.mlpackage"
SWIFT = "MoRViTKit"
STEM, MAIN = "stem", "main"  # the function that runs before the bucket is known; the only one of a package
SEVERAL_FUNCTIONS = 18  # the oldest iOS that loads a package of several functions
SYSTEMS: dict[int, str] = {17: "iOS 17 and macOS 14", 18: "iOS 18 and macOS 15"}


class CoremlForm(TargetForm):
    """The package's form: what `verify` needs to build the same static graphs, and what an app must know.

    `functions` are those of the package in order: `stem` and one for each bucket; or the only one, `main`.
    """

    ios: Annotated[int, Field(ge=17)]  # the oldest system that loads the package; iOS 18 is macOS 15
    layout: Layout
    select: Select
    attention: Attention = "manual"
    weights: Weights
    classifier: bool  # labels are in the package: it returns classLabel and classLabel_probs
    functions: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def exact(self) -> bool:
        return self.weights == "float"

    def problems(self, manifest: Manifest) -> list[str]:
        buckets = tuple(bucket.name for bucket in manifest.plan.buckets)
        expected = (STEM, *buckets) if manifest.plan.adaptive else (MAIN,)
        if self.functions == expected:
            return []
        return [f"functions: {list(self.functions)}, the plan has {list(expected)}"]
