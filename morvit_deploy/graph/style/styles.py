"""The styles of a static graph, each laid out for a runtime, and the options of a graph. The logits are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.maths.layouts import BC1S, BSD, RowLayout
from morvit_deploy.graph.style.blocks import FusedBlock, StaticBlock
from morvit_deploy.graph.style.channels_first import PointwiseBlock
from morvit_deploy.graph.style.one_hot import OneHot, OneHotChannels
from morvit_deploy.graph.style.selection import Gathers, OneGather
from morvit_deploy.graph.style.stems import ConvStem, RowStem, Stem
from morvit_deploy.model.choices import Attention, Input, Layout, Output, Select


@dataclass(frozen=True)
class Style:
    """The components of a static graph. `STYLES` lists every supported combination."""

    purpose: str  # which runtime it suits, and why
    layout: RowLayout
    selection: type[Gathers]
    stem: type[Stem]
    block: type[StaticBlock]  # also defines the attention, the linear layers and the norms
    single: bool = True  # batch size 1: tensors inside the graph have no batch axis

    @property
    def one_hot(self) -> bool:
        """Whether tokens are selected by matrix products, which cost MACs."""
        return issubclass(self.selection, OneHot)

    def select(self, tokens: int, dtype: torch.dtype) -> Gathers:
        """Return the selection for `tokens` tokens with states of `dtype`.

        Raises ConfigError if there are more tokens than the selection can number exactly.
        """
        most = self.selection.most_tokens
        if most is not None and tokens > most:
            raise ConfigError(
                f"select 'onehot': got {tokens} tokens, expected at most {most}; use select 'topk'"
            )
        return self.selection(self.layout, dtype)


STYLES = {
    "rows": Style(
        "ONNX Runtime and TensorRT: any batch size, one gather per group of tokens",
        BSD, Gathers, RowStem, StaticBlock, single=False,
    ),
    "one-image": Style(
        "ONNX Runtime and TensorRT at batch 1: without a batch axis, products are plain matrix products",
        BSD, Gathers, RowStem, StaticBlock,
    ),
    "bsd-topk": Style(
        "Core ML's default: a convolution extracts the patches, because reshapes would reach rank 6; one gather per "
        "step, because the converter expands every index computation into several operations",
        BSD, OneGather, ConvStem, StaticBlock,
    ),
    "bsd-topk-fused": Style(
        "Core ML from iOS 18: attention as one operator",
        BSD, OneGather, ConvStem, FusedBlock,
    ),
    "bsd-onehot": Style(
        "Core ML without top-k and gathers, which may not run on the Neural Engine",
        BSD, OneHot, ConvStem, StaticBlock,
    ),
    "bsd-onehot-fused": Style(
        "Core ML from iOS 18: no top-k, no gathers, attention as one operator",
        BSD, OneHot, ConvStem, FusedBlock,
    ),
    "bc1s-topk": Style(
        "Core ML: channels first, the layout that Apple recommends for the Neural Engine",
        BC1S, OneGather, ConvStem, PointwiseBlock,
    ),
    "bc1s-onehot": Style(
        "Core ML: channels first throughout, without top-k and gathers",
        BC1S, OneHotChannels, ConvStem, PointwiseBlock,
    ),
}  # fmt: skip


def style_of(layout: Layout, select: Select, attention: Attention = "manual") -> Style:
    """Return the Core ML style for a layout, a selection and an attention; ConfigError if it is not supported."""
    name = f"{layout}-{select}" + ("-fused" if attention == "fused" else "")
    if name not in STYLES:
        raise ConfigError(
            f"static graph: got layout {layout!r}, select {select!r}, attention {attention!r}; "
            f"expected one of the styles {', '.join(STYLES)}"
        )
    return STYLES[name]


def style_for_batch(batch: int | str) -> Style:
    """Return the style of ONNX and TensorRT graphs for a fixed batch size, or for batch "dynamic"."""
    return STYLES["one-image" if batch == 1 else "rows"]


@dataclass(frozen=True)
class Options:
    """Input, outputs and style of a static graph. None of them changes the logits.

    `cls_only`, `frozen_keys`, `fold` and `unformed_keys` are rewrites 3 to 6; they are turned off only to measure
    their effect.
    """

    input: str = "uint8"  # raw pixels; "float": normalised. The style's stem documents the shapes
    with_depth: bool = False
    style: Style = STYLES["one-image"]
    cls_only: bool = True
    frozen_keys: bool = True
    fold: bool = True
    unformed_keys: bool = True  # False for bundles that were written before it, too
    output: Output = "logits"

    def __post_init__(self) -> None:
        if self.input not in get_args(Input):
            raise ConfigError(
                f"static graph: got input {self.input!r}, expected {' or '.join(get_args(Input))}"
            )

    @property
    def single(self) -> bool:
        """Whether the graph takes one image and has no batch axis inside."""
        return self.style.single


DEFAULTS = Options()
