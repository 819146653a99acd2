"""Edge-RecViT (github.com/RicardoLee510520/Edge-RecViT), by the paper's author: token choice with three blocks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from morvit_deploy.sources.families.classifier import labels_of, settle_head_activation
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.families.settling import (
    hold_to_config,
    image_sizes,
    need,
    settle_heads,
    settle_positions,
    settle_preprocess,
    width_fields,
)
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.dora import SLOTS, merging
from morvit_deploy.sources.tensors.keymap import COPIED, KIND, QKV, Rule, copy, drop, part, recipe
from morvit_deploy.sources.tensors.reading import Contents

_BLOCKS = {"head": "first", "shared": "cycle.0", "tail": "last"}


def _block_rules(source: str, target: str) -> list[Rule]:
    at = rf"mor_vit\.block_{source}\."
    slots = {"query": "q", "key": "k", "value": "v"}
    return [
        *(
            part(rf"{at}attention\.{name}\.{KIND}", slot, rf"{target}.attn.qkv.\g<kind>")
            for name, slot in slots.items()
        ),
        copy(rf"{at}attention\.proj\.{KIND}", rf"{target}.attn.proj.\g<kind>"),
        copy(rf"{at}attention\.proj\.base_layer\.bias", f"{target}.attn.proj.bias"),
        part(rf"{at}attention\.proj\.base_layer\.weight", "base", f"{target}.attn.proj.weight"),
        *(
            part(rf"{at}attention\.proj\.{slot}", slot, f"{target}.attn.proj.weight")
            for slot in SLOTS
            if slot != "base"
        ),
        copy(rf"{at}layernorm_before\.{KIND}", rf"{target}.norm1.\g<kind>"),
        copy(rf"{at}layernorm_after\.{KIND}", rf"{target}.norm2.\g<kind>"),
        copy(rf"{at}intermediate\.{KIND}", rf"{target}.mlp.fc1.\g<kind>"),
        copy(rf"{at}output\.{KIND}", rf"{target}.mlp.fc2.\g<kind>"),
    ]


class EdgeRecViT(Family):
    """Layer s of L updates the tokens whose depth, computed from their embedding, is at least s; all stay keys."""

    name = "edge_recvit"
    title = "an Edge-RecViT checkpoint"
    signature = (
        r"mor_vit\.embeddings\.patch_embeddings\.weight",
        r"mor_vit\.block_shared\.",
        r"mor_vit\.router\.router\.",
    )
    rules = (
        copy(rf"mor_vit\.embeddings\.patch_embeddings\.{KIND}", r"patch_embed.proj.\g<kind>"),
        copy(r"mor_vit\.embeddings\.cls_token", "cls_token"),
        copy(r"mor_vit\.embeddings\.position_embeddings", "pos_embed"),
        *(rule for source, target in _BLOCKS.items() for rule in _block_rules(source, target)),
        copy(r"mor_vit\.router\.router\.0\.weight", "routers.0.0.weight"),
        copy(r"mor_vit\.router\.router\.2\.weight", "routers.0.1.weight"),
        copy(r"mor_vit\.router\.router\.4\.weight", "routers.0.2.weight"),
        copy(rf"mor_vit\.layernorm\.{KIND}", r"norm.\g<kind>"),
        copy(rf"classifier\.{KIND}", r"head.\g<kind>"),
        drop(r"(mor_vit\.)?mlp_router\..*", "a router used only by the training loss"),
    )

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        alpha = _settle_alpha(contents, questions)
        dora = recipe("DoRA merged" + (f", alpha {alpha:g}" if alpha else ""), merging(alpha), *SLOTS)
        tensors, rows = self.built(contents, (COPIED, QKV, dora))
        remarks = _without_positions(tensors, contents)
        need(tensors, contents, self.title, *_NEEDED)
        draft = Draft(self._fields(contents, questions, tensors), tensors, rows, remarks)
        size = settle_positions(draft, questions, "position_embeddings", image_sizes(contents))
        hold_to_config(contents, {"image_size": size})
        settle_preprocess(
            draft.fields, questions, published="cifar10, in its CIFAR-10 script", example="cifar10"
        )
        draft.tied = f"block_shared is stored once and applied {draft.fields['num_recursions']} times"
        return draft

    def _fields(self, contents: Contents, questions: Questions, tensors: dict[str, Tensor]) -> dict[str, Any]:
        stored = contents.config or {}
        layers, hidden = tensors["routers.0.2.weight"].shape[0], ("routers.0.0.weight", "routers.0.1.weight")
        fields = width_fields(tensors, "first")
        hold_to_config(
            contents,
            {
                "num_hidden_layers": layers,
                "hidden_size": fields["embed_dim"],
                "intermediate_size": fields["mlp_dim"],
                "patch_size": fields["patch_size"],
            },
        )
        activation = stored.get("hidden_act")
        return fields | {
            "num_heads": settle_heads(questions, stored.get("num_attention_heads"), fields["embed_dim"]),
            "norm_eps": questions.settle(
                "norm_eps", stored=stored.get("layer_norm_eps"), published="1e-12", usual=1e-12
            ),
            # its code takes ReLU for every name but "gelu"
            "activation": questions.settle(
                "activation",
                stored=activation and ("gelu" if activation == "gelu" else "relu"),
                origin=f"config.json, hidden_act {activation!r}",
                published="gelu",
                usual="gelu",
            ),
            "head_activation": settle_head_activation(
                questions, fields["num_classes"], stored.get("problem_type")
            ),
            "sharing": "middle_cycle",
            "cycle_depth": 1,
            "num_recursions": layers - 2,
            "routing": "token_choice",
            "router": {
                "hidden": [tensors[name].shape[0] for name in hidden],
                "activation": "sigmoid",  # unused: token choice has no score
                "bias": False,
                "shared": False,
                "alpha": 1.0,
            },
            "gate": "hard",
            "attention_scope": "all",
            "capacity": None,
            "head_hidden": [],
            "labels": labels_of(contents.config, fields["num_classes"]),
        }


_NEEDED = (
    *(
        "patch_embed.proj.weight",
        "cls_token",
        "pos_embed",
        "first.mlp.fc1.weight",
        "norm.weight",
        "head.weight",
    ),
    *(f"routers.0.{j}.weight" for j in range(3)),
)


def _settle_alpha(contents: Contents, questions: Questions) -> Any:
    """Settle DoRA's alpha if a projection still has DoRA; its author sets it to the rank, and no file contains it."""
    if not any(".attention.proj.dora_" in key for key in contents.tensors):
        return None
    directions = [t for key, t in contents.tensors.items() if key.endswith(".proj.dora_A") and t.ndim]
    rank = str(directions[0].shape[0]) if directions else "RANK"
    published = f"the rank, here {rank}, unless it was trained with another"
    return questions.settle("dora_alpha", published=published, example=rank)


def _without_positions(tensors: dict[str, Tensor], contents: Contents) -> list[str]:
    """Set positions to zero for `use_abs_pos_emb` false; the image size is that of config.json."""
    stored = contents.config or {}
    if "pos_embed" in tensors or stored.get("use_abs_pos_emb") is not False or "cls_token" not in tensors:
        return []
    image, patch = stored.get("image_size"), stored.get("patch_size")
    if not isinstance(image, int) or not isinstance(patch, int) or not patch:
        return []  # `need` reports the missing tensor
    side = image // patch
    tensors["pos_embed"] = tensors["cls_token"].new_zeros(1, side * side + 1, tensors["cls_token"].shape[2])
    return ["use_abs_pos_emb is false in config.json: position embeddings are zero"]
