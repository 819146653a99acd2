"""Families that are detected in order to report why they are not supported."""

from __future__ import annotations

from morvit_deploy.model.config import GROWN
from morvit_deploy.sources.families.family import Foreign

_LLAMA = (
    f"its blocks are Llama blocks (RMSNorm, a gated SiLU MLP, rotary or no positions), while {GROWN} blocks are ViT "
    "blocks (LayerNorm, a two-layer MLP, learned positions); the weights cannot be converted"
)

REFUSED = (
    Foreign(
        title="an LV-ViT, or DynamicViT on one",
        signature=(r"patch_embed\.conv1\.weight", r"blocks\.\d+\.attn\.qkv\.weight", r"aux_head\.weight"),
        reason="its patches come from a stem of convolutions with batch norm, its residuals are halved, and a second "
        f"head reads the patch tokens, while {GROWN} has one patch projection, plain residuals and one head",
    ),
    Foreign(
        title="an official Mixture-of-Recursions language model, or a fork of it (vit-mor)",
        signature=(
            r"(.*\.)?layers\.\d+\.(.*\.)?mlp\.gate_proj\.weight",
            r"(.*\.)?layers\.\d+\.(.*\.)?input_layernorm\.weight",
        ),
        reason=_LLAMA,
    ),
    Foreign(
        title="Vision-MoR's Transformers variant (MoRViTModel)",
        signature=(r"(vit\.)?encoder\.first_block\.", r"(vit\.)?encoder\.routers\.\d+\.router\."),
        reason="its encoder passes the router's selection to the layers as a head mask, which multiplies attention "
        "weights after the softmax. Every token is updated at every step, so no compute can be saved; retrain with "
        "MoRVisionTransformer, whose blocks run on the selected tokens",
    ),
)
