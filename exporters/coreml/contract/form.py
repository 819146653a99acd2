"""A Core ML package's manifest entry. No torch, no coremltools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from morvit_deploy.bundle.forms import TargetForm
from morvit_deploy.exporters.coreml.contract.names import Weights
from morvit_deploy.exporters.functions.rules import function_problems
from morvit_deploy.model.choices import Attention, Layout, Select

if TYPE_CHECKING:
    from morvit_deploy.bundle.manifest import Manifest


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
        return function_problems(self.functions, manifest)
