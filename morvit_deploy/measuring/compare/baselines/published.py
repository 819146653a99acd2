"""Figures that others published, each with its source. Nothing in this file was measured here.

The rows are Table 2 of the MoR-ViT paper, whose images per second are those of a GPU that it does not name, two
methods that drop or merge tokens, and the ablation of its Table 4. `baseline` is what `--baselines table2` or
`table4` measures for a row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TABLE2, TABLE4 = "table2", "table4"
PAPER = "MoR-ViT (2025), Table 2: an unnamed GPU"
ABLATION = "MoR-ViT (2025), Table 4: an unnamed GPU"
PRESET = "morvit_b16"  # of `init`: one reading of the paper's model
PLAIN = "vit_b16"


@dataclass(frozen=True)
class Published:
    """What a paper says of a method, and what stands for it here: a baseline, or bundles of a preset.

    Bundles whose routing is the method stand for it, too.
    """

    method: str
    top1_percent: float | None
    images_per_s: float | None
    source: str
    baseline: str | None = None  # model of timm, speed model or preset of `init` that `table2` measures
    preset: str | None = None  # bundles of this architecture are this method

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


METHODS = (
    Published("MoR-ViT", 83.0, 1800, PAPER, preset=PRESET),
    Published("TinyViT", 84.7, 1800, PAPER, baseline="tiny_vit_21m_224"),
    Published("ATS", 83.0, 1600, PAPER, baseline="ats"),
    Published("TokenLearner", 83.7, 1550, PAPER, baseline="tokenlearner"),
    Published("EfficientFormer", 83.3, 2100, PAPER, baseline="efficientformer_l3"),
    Published("ResNet-50", 79.9, 1200, PAPER, baseline="resnet50"),
    Published("DeiT-B/16", 81.7, 920, PAPER, baseline="deit_base_patch16_224"),
    Published("ViT-B/16", 81.8, 900, PAPER, baseline="vit_base_patch16_224", preset=PLAIN),
    Published("DynamicViT", 82.3, 1400, PAPER, baseline="dynamic_vit_s16"),
    Published("MetaFormer", 83.5, 1950, PAPER, baseline="poolformer_s36"),
    Published("MobileViT", 81.5, 1900, PAPER, baseline="mobilevitv2_200"),
    Published("SparseFormer", 82.1, 1750, PAPER, baseline="sparseformer"),
    Published("Token Clustering Transformer", 82.8, 1700, PAPER, baseline="tct"),
    Published("EViT", None, None, "not in Table 2", baseline="evit_s16"),
    Published("ToMe", None, None, "not in Table 2", baseline="tome_s16"),
)
UNROUTED, UNTIED = "without_dynamic_recursion", "without_sharing"
ABLATED = (  # the table's other two rows are MoR-ViT and ViT-B/16, with the figures of Table 2
    Published("MoR-ViT w/o dynamic recursion", 82.3, 1770, ABLATION, baseline=UNROUTED),
    Published("MoR-ViT w/o parameter sharing", 82.7, 950, ABLATION, baseline=UNTIED),
)
OTHERS = (  # further timm models that are small and fast; any other name of timm is taken, too
    "efficientvit_m2", "fastvit_sa12", "mobilenetv3_large_100", "mobileone_s1", "nextvit_small", "repvit_m1_1",
    "shvit_s4",
)  # fmt: skip  # two lines read better than seven
REFERENCE = "vit_base_patch16_224"  # the row that ratios refer to, if it is there


def table2() -> list[str]:
    """The baselines of every row that is none of our bundles, in the order of the paper."""
    return [one.baseline for one in METHODS if one.baseline is not None]


def table4() -> list[str]:
    """The baselines of the paper's ablation, beside our bundle."""
    return [UNROUTED, UNTIED, REFERENCE]


SETS = {TABLE2: table2, TABLE4: table4}  # names that stand for several baselines


def of_baseline(name: str) -> Published | None:
    """What is published of the method that a baseline stands for."""
    return next((one for one in (*METHODS, *ABLATED) if one.baseline == name), None)


def of_bundle(method: str | None, preset: str | None) -> Published | None:
    """The same for a bundle: by the method that its routing is, or by the preset whose architecture it has."""
    mine = (one for one in METHODS if one.method == method or (preset and one.preset == preset))
    return next(mine, None)
