"""What the caller may choose about a static graph. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from morvit_deploy.errors import ConfigError

Layout = Literal["bsd", "bc1s"]
Select = Literal["topk", "onehot"]
Attention = Literal["manual", "fused"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
SELECTS: tuple[Select, ...] = get_args(Select)
Image = Literal["uint8", "float", "image"]


@dataclass(frozen=True)
class Options:
    """What the caller may choose about the graph; none of it changes the logits.

    `cls_only`, `frozen_keys` and `fold` are rewrites 3 to 5: off only to measure what each is worth. The others from
    `layout` on are the same arithmetic in the forms that accelerators take: see `coreml_options`.
    """

    input: str = "uint8"  # see IMAGES
    with_depth: bool = False
    single: bool = True  # for one image: the graph has no batch axis inside
    cls_only: bool = True
    frozen_keys: bool = True
    fold: bool = True
    layout: Layout = "bsd"  # tokens (…, tokens, dim), or channels first: (1, dim, 1, tokens)
    select: Select = "topk"  # tokens by index, or by products with one-hot rows
    gathers: Literal["apart", "once"] = "apart"  # top-k: kept and leavers, or all rows at once, then slices
    patches: Literal["rows", "conv"] = "rows"  # patch projection: a product of rows, or a convolution
    attention: Literal["manual", "fused"] = "manual"  # products and softmax, or one operator

    def __post_init__(self) -> None:
        """ConfigError for what no graph can be."""
        for wrong, told, wanted in (
            (self.input not in IMAGES, f"input {self.input!r}", " or ".join(IMAGES)),
            (self.layout == "bc1s" and not self.single, "layout 'bc1s' with a batch", "single"),
            (self.select == "onehot" and not self.single, "select 'onehot' with a batch", "single"),
            (self.gathers == "once" and not self.single, "gathers 'once' with a batch", "single"),
            (self.layout == "bc1s" and self.patches != "conv", "layout 'bc1s' of rows", "patches 'conv'"),
            (
                self.layout == "bc1s" and self.select == "topk" and self.gathers != "once",
                "layout 'bc1s' with gathers 'apart'",
                "gathers 'once'",
            ),
            (self.input == "image" and self.patches != "conv", "input 'image' of rows", "patches 'conv'"),
            (self.input == "uint8" and self.patches == "conv", "input 'uint8' of patches 'conv'", "'image'"),
            (self.attention == "fused" and self.layout != "bsd", "attention 'fused'", "layout 'bsd'"),
        ):
            if wrong:
                raise ConfigError(f"static graph: got {told}, expected {wanted}")


IMAGES = {
    "uint8": "(batch, height, width, 3) pixels",
    "float": "(batch, 3, height, width) normalised",
    "image": "(1, 3, height, width) pixels / 256",
}
DEFAULTS = Options()
