"""The styles of a static graph: the same arithmetic, laid out for different runtimes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.maths.layouts import BC1S, BSD, RowLayout
from morvit_deploy.graph.style.blocks import FusedBlock, StaticBlock
from morvit_deploy.graph.style.channels_first import PointwiseBlock
from morvit_deploy.graph.style.one_hot import OneHot, OneHotChannels
from morvit_deploy.graph.style.selection import Gathers, OneGather
from morvit_deploy.graph.style.stems import ConvStem, RowStem, Stem
from morvit_deploy.graph.style.words import Attention, Layout, Select


@dataclass(frozen=True)
class Style:
    """What a static graph is made of. `STYLES` lists all that exist; none of them changes the logits."""

    purpose: str  # for whom, and why
    layout: RowLayout
    selection: type[Gathers]
    stem: type[Stem]
    block: type[StaticBlock]  # with its attention, and the linear layers and norms of its layout
    single: bool = True  # for one image: the graph has no batch axis inside

    @property
    def one_hot(self) -> bool:
        """Whether tokens are selected by products, which cost MACs."""
        return issubclass(self.selection, OneHot)

    def select(self, tokens: int, dtype: torch.dtype) -> Gathers:
        """The selection among `tokens` tokens with states of `dtype`; ConfigError for more than it can number."""
        most = self.selection.most_tokens
        if most is not None and tokens > most:
            raise ConfigError(
                f"select 'onehot': got {tokens} tokens, expected at most {most}; use select 'topk'"
            )
        return self.selection(self.layout, dtype)


STYLES = {
    "rows": Style(
        "ONNX Runtime and TensorRT: a batch of images, a gather for each group of tokens",
        BSD, Gathers, RowStem, StaticBlock, single=False,
    ),
    "one-image": Style(
        "ONNX Runtime and TensorRT at batch 1: without a batch axis, products are plain matrix products",
        BSD, Gathers, RowStem, StaticBlock,
    ),
    "bsd-topk": Style(
        "Core ML's default: a convolution cuts patches without reshapes of rank 6; one gather a step, because the "
        "converter writes out every index sum",
        BSD, OneGather, ConvStem, StaticBlock,
    ),
    "bsd-topk-fused": Style(
        "Core ML from iOS 18: attention as one operator",
        BSD, OneGather, ConvStem, FusedBlock,
    ),
    "bsd-onehot": Style(
        "Core ML without top-k and gathers, which may leave the Neural Engine",
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
    """The style for Core ML that users and manifests name by three words; ConfigError where there is none."""
    name = f"{layout}-{select}" + ("-fused" if attention == "fused" else "")
    if name not in STYLES:
        raise ConfigError(
            f"static graph: got layout {layout!r}, select {select!r}, attention {attention!r}; "
            f"expected one of the styles {', '.join(STYLES)}"
        )
    return STYLES[name]


def style_for_batch(batch: int | str) -> Style:
    """The style of ONNX and TensorRT graphs for a fixed batch size, or for batch "dynamic"."""
    return STYLES["one-image" if batch == 1 else "rows"]
