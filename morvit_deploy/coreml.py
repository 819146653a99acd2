"""What a Core ML package was asked to be: its manifest entry. No torch, no coremltools."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from morvit_deploy.config import Strict

Layout = Literal["bsd", "bc1s"]
Select = Literal["topk", "onehot"]
Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

PACKAGE = "MoRViT.mlpackage"
STEM = "stem"  # the function that runs before the bucket is known
OLDEST_IOS = {"single": 17, "host": 18}  # several functions in one package need iOS 18


class CoremlForm(Strict):
    """The package's form: what `verify` needs to build the same static graphs, and what an app must know.

    `functions` are those of the package in order: `stem` and one for each bucket; or the only bucket's, `main`.
    """

    ios: Annotated[int, Field(ge=17)]  # the oldest system that loads the package; iOS 18 is macOS 15
    layout: Layout
    select: Select
    weights: Weights
    classifier: bool  # labels are in the package: it answers classLabel and classLabel_probs
    functions: Annotated[tuple[str, ...], Field(min_length=1)]
