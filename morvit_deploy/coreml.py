"""What a Core ML package is asked to be, and its manifest entry. No torch, no coremltools."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_args

from pydantic import Field

from morvit_deploy.config import Strict
from morvit_deploy.errors import ConfigError

Layout = Literal["bsd", "bc1s"]
Select = Literal["topk", "onehot"]
Attention = Literal["manual", "fused"]
Weights = Literal["float", "int8", "int4", "palette8", "palette6", "palette4"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)

PACKAGE = "MoRViT.mlpackage"
SWIFT = "MoRViTKit"
STEM, MAIN = "stem", "main"  # the function that runs before the bucket is known; the only one of a package
SEVERAL_FUNCTIONS = 18  # the oldest iOS that loads a package of several functions
NEEDS_18 = {"weights": ("int4",), "attention": ("fused",)}  # operators of that system's opset
SYSTEMS = {17: "iOS 17 and macOS 14", 18: "iOS 18 and macOS 15"}


@dataclass(frozen=True)
class CoremlAsked:
    """Options of target `coreml`."""

    ios: int = 18  # the oldest system that shall load the package
    layout: Layout = "bsd"
    select: Select = "topk"
    attention: Attention = "manual"
    weights: Weights = "float"
    classifier: bool | None = (
        None  # answer a label; None: where the checkpoint has labels and one function answers
    )
    author: str | None = None  # on the model card; None: the checkpoint's provenance, where it says
    license: str | None = None

    def __post_init__(self) -> None:
        """ConfigError for a value that no package can have, or that the asked iOS cannot hold."""
        allowed = {"layout": Layout, "select": Select, "attention": Attention, "weights": Weights}
        for name, values in allowed.items():
            if getattr(self, name) not in get_args(values):
                raise ConfigError(
                    f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(get_args(values))}"
                )
        if self.ios not in SYSTEMS:
            raise ConfigError(f"ios: got {self.ios!r}, expected one of {', '.join(map(str, SYSTEMS))}")
        if self.attention == "fused" and self.layout == "bc1s":
            raise ConfigError(
                "attention: got 'fused' with layout 'bc1s', which has a chunk for each head; use layout 'bsd'"
            )
        for name, newer in NEEDS_18.items():
            if self.ios < SEVERAL_FUNCTIONS and getattr(self, name) in newer:
                raise ConfigError(
                    f"ios: got {self.ios}; {name} {getattr(self, name)!r} needs iOS 18 or later"
                )

    @classmethod
    def names(cls) -> set[str]:
        """What can be asked."""
        return {field.name for field in fields(cls)}


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
