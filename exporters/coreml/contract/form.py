"""A Core ML package's manifest entry. No torch, no coremltools."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from morvit_deploy.exporters.coreml.contract.names import PACKAGE, Weights
from morvit_deploy.exporters.kit.form import AppForm, Runtime
from morvit_deploy.model.choices import Attention, Layout, Select


class CoremlForm(AppForm):
    """The package's form: what `verify` needs to build the same static graphs, and what an app must know."""

    runtime: ClassVar[Runtime] = "coreml"
    file: ClassVar[str] = PACKAGE

    ios: Annotated[int, Field(ge=17)]  # the oldest system that loads the package; iOS 18 is macOS 15
    layout: Layout
    select: Select
    attention: Attention = "manual"
    weights: Weights
    classifier: bool  # labels are in the package: it returns classLabel and classLabel_probs

    @property
    def oldest_ios(self) -> int:
        return self.ios
