"""ViT of torchvision (torchvision.models.vit_b_16 …), with the names of all its versions."""

from __future__ import annotations

from morvit_deploy.sources.families.classifier import settle_head_activation
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.families.layers import settle_layers
from morvit_deploy.sources.families.settling import (
    NEEDED,
    PLAIN,
    need,
    settle_head,
    settle_heads,
    settle_positions,
    settle_preprocess,
    width_fields,
)
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import COPIED, KIND, Rule, copy, refuse
from morvit_deploy.sources.tensors.reading import Contents

_BLOCK = {
    rf"ln_1\.{KIND}": "norm1",
    rf"ln_2\.{KIND}": "norm2",
    rf"self_attention\.in_proj_{KIND}": "attn.qkv",
    rf"self_attention\.out_proj\.{KIND}": "attn.proj",
    rf"mlp\.(?:0|linear_1)\.{KIND}": "mlp.fc1",  # torchvision below 0.13 wrote linear_1 and linear_2
    rf"mlp\.(?:3|linear_2)\.{KIND}": "mlp.fc2",
}


def _block_rules() -> list[Rule]:
    at = r"encoder\.layers\.encoder_layer_(?P<i>\d+)\."
    return [copy(at + source, rf"layers.\g<i>.{target}.\g<kind>") for source, target in _BLOCK.items()]


class TorchvisionViT(Family):
    """Every token runs every layer. A representation layer becomes a hidden layer of the head."""

    name = "torchvision_vit"
    title = "a ViT of torchvision"
    signature = (r"conv_proj\.", r"encoder\.layers\.encoder_layer_\d+\.self_attention\.in_proj_weight")
    recipes = (COPIED,)
    rules = (
        copy(rf"conv_proj\.{KIND}", r"patch_embed.proj.\g<kind>"),
        copy(r"class_token", "cls_token"),
        copy(r"encoder\.pos_embedding", "pos_embed"),
        *_block_rules(),
        copy(rf"encoder\.ln\.{KIND}", r"norm.\g<kind>"),
        copy(rf"heads\.pre_logits\.{KIND}", r"head.0.\g<kind>"),
        copy(rf"heads\.head\.{KIND}", r"head.\g<kind>"),
        refuse(r"conv_proj\..*", "its patches come from a stem of several convolutions"),
    )

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        tensors, rows = self.built(contents)
        need(tensors, contents, self.title, *NEEDED)
        draft = Draft(width_fields(tensors, "layers.0"), tensors, rows)
        settle_positions(draft, questions, "encoder.pos_embedding", sizes=contents.arguments.image_sizes())
        settle_preprocess(
            draft.fields,
            questions,
            published="torchvision; for the SWAG weights a JSON file: bicubic, resize as large as the crop",
            example="torchvision",
        )
        draft.fields |= {
            **PLAIN,
            "num_heads": settle_heads(questions, None, draft.fields["embed_dim"]),
            "norm_eps": questions.settle("norm_eps", published="1e-6", usual=1e-6),
            "activation": questions.settle("activation", published="gelu", usual="gelu"),
            "head_activation": settle_head_activation(questions, draft.fields["num_classes"]),
            "head_hidden": settle_head(draft),
            "labels": None,
        }
        settle_layers(draft, questions)
        return draft
