"""Options of target `coreml`. No torch, no coremltools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.coreml.contract.names import SEVERAL_FUNCTIONS, Ios, Weights
from morvit_deploy.exporters.functions.rules import check_functions
from morvit_deploy.exporters.options import Help, TargetOptions
from morvit_deploy.model.choices import Attention, Input, Layout, Select

if TYPE_CHECKING:
    from morvit_deploy.exporters.request import Request
    from morvit_deploy.graph.style.styles import Options

NEEDS_18 = {"weights": ("int4",), "attention": ("fused",)}  # operators of that system's opset


@dataclass(frozen=True)
class CoremlOptions(TargetOptions):
    """Options of target `coreml`."""

    ios: Annotated[
        Ios, Help("Oldest iOS that loads the package (default: 18; 17 supports a single bucket).")
    ] = 18
    layout: Annotated[
        Layout,
        Help(
            "bsd: tokens as rows (default); bc1s: tokens as columns of 1×1 convolutions, attention per head."
        ),
    ] = "bsd"
    select: Annotated[
        Select,
        Help(
            "topk: tokens are gathered by index (default); onehot: ranked by comparisons and selected by a matrix "
            "product, without topk or gather."
        ),
    ] = "topk"
    attention: Annotated[
        Attention,
        Help("manual: matmul, softmax, matmul (default); fused: the operator of iOS 18, with layout bsd."),
    ] = "manual"
    weights: Annotated[
        Weights, Help("How weights are stored; arithmetic stays in --precision (default: float).")
    ] = "float"
    classifier: Annotated[
        bool | None,
        Help("Return a class label (default: if the checkpoint has labels and the plan one bucket)."),
    ] = None
    author: Annotated[str | None, Help("Author on the model card (default: the checkpoint's).")] = None
    license: Annotated[str | None, Help("License on the model card.")] = None

    def __post_init__(self) -> None:
        """ConfigError for an invalid value, or one that the chosen iOS does not support."""
        super().__post_init__()
        if self.attention == "fused" and self.layout == "bc1s":
            raise ConfigError(
                "attention: got 'fused' with layout 'bc1s', which has a chunk for each head; use layout 'bsd'"
            )
        for name, newer in NEEDS_18.items():
            if self.ios < SEVERAL_FUNCTIONS and getattr(self, name) in newer:
                raise ConfigError(
                    f"ios: got {self.ios}; {name} {getattr(self, name)!r} needs iOS 18 or later"
                )

    @property
    def exact(self) -> bool:
        return self.weights == "float"

    def check(self, request: Request) -> None:
        check_functions(request, "a Core ML package", "the app or MoRViTKit")


class CoremlKeywords(TypedDict, total=False):
    """The same as keywords of `export`."""

    ios: Ios
    layout: Layout
    select: Select
    attention: Attention
    weights: Weights
    classifier: bool | None
    author: str | None
    license: str | None


def coreml_options(
    port: Input, layout: Layout, select: Select, *, with_depth: bool = False, attention: Attention = "manual"
) -> Options:
    """Options of the static graphs for Core ML, one image at a time; `port` is the bundle's input: uint8 or float."""
    from morvit_deploy.graph.style.styles import (
        Options,  # these load torch
        style_of,
    )

    return Options(input=port, with_depth=with_depth, style=style_of(layout, select, attention))
