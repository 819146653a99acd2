"""A Core ML package's manifest entry. No torch, no coremltools."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morvit_deploy.graph.style.words import Attention, Layout, Select
from morvit_deploy.model.config import Strict

Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]

PACKAGE = "MoRViT.mlpackage"
SWIFT = "MoRViTKit"
STEM, MAIN = "stem", "main"  # the function that runs before the bucket is known; the only one of a package
SEVERAL_FUNCTIONS = 18  # the oldest iOS that loads a package of several functions
SYSTEMS = {17: "iOS 17 and macOS 14", 18: "iOS 18 and macOS 15"}


class CoremlForm(Strict):
    """The package's form: what `verify` needs to build the same static graphs, and what an app must know.

    `functions` are those of the package in order: `stem` and one for each bucket; or the only one, `main`.
    """

    ios: Annotated[int, Field(ge=17)]  # the oldest system that loads the package; iOS 18 is macOS 15
    layout: Layout
    select: Select
    attention: Attention = "manual"
    weights: Weights
    classifier: bool  # labels are in the package: it answers classLabel and classLabel_probs
    functions: Annotated[tuple[str, ...], Field(min_length=1)]
