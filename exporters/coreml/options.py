"""Options of target `coreml`. No torch, no coremltools."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, get_args

from morvit_deploy.bundle.coreml import SEVERAL_FUNCTIONS, SYSTEMS, Weights
from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.style.words import Attention, Layout, Select

if TYPE_CHECKING:
    from morvit_deploy.graph.style.options import Options

NEEDS_18 = {"weights": ("int4",), "attention": ("fused",)}  # operators of that system's opset


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


def coreml_options(
    port: str, layout: Layout, select: Select, *, with_depth: bool = False, attention: Attention = "manual"
) -> Options:
    """Options of the static graphs for Core ML, one image at a time; `port` is the bundle's input: uint8 or float."""
    from morvit_deploy.graph.style.options import Options  # these load torch
    from morvit_deploy.graph.style.styles import style_of

    return Options(input=port, with_depth=with_depth, style=style_of(layout, select, attention))
