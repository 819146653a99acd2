"""Families that are detected only to report why they are not supported."""

from __future__ import annotations

from morvit_deploy.sources.families.family import Foreign

_LLAMA = (
    "its blocks are Llama's: RMSNorm without shift, a gated MLP (SiLU), rotary or no positions in the block. A "
    "morvit/1 block is a ViT's: LayerNorm, a plain two-layer MLP, learned positions. No weights "
    "make one the other"
)

REFUSED = (
    Foreign(
        name="official_mor",
        title="an official Mixture-of-Recursions language model, or a fork of it (vit-mor)",
        signature=(
            r"(.*\.)?layers\.\d+\.(.*\.)?mlp\.gate_proj\.weight",
            r"(.*\.)?layers\.\d+\.(.*\.)?input_layernorm\.weight",
        ),
        reason=_LLAMA,
    ),
    Foreign(
        name="vision_mor_hf",
        title="Vision-MoR's Transformers variant (MoRViTModel)",
        signature=(r"(vit\.)?encoder\.first_block\.", r"(vit\.)?encoder\.routers\.\d+\.router\."),
        reason="its encoder hands the router's choice to the layers as a head mask: every token is updated at every "
        "step, and attention weights are multiplied after the softmax. No token leaves, so nothing can be unrolled; "
        "retrain with MoRVisionTransformer, whose blocks run on the chosen tokens",
    ),
)
