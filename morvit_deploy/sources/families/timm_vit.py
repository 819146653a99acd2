"""Plain ViTs with timm's names: timm (github.com/huggingface/pytorch-image-models), DeiT, DeiT III, registers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.families.classifier import settle_head_activation, settle_pooling
from morvit_deploy.sources.families.family import Draft, Family, unsupported
from morvit_deploy.sources.families.layers import settle_layers
from morvit_deploy.sources.families.settling import (
    NEEDED,
    PLAIN,
    add_missing_head,
    edges_in,
    hold_to_config,
    need,
    settle_head,
    settle_heads,
    settle_positions,
    settle_preprocess,
    width_fields,
)
from morvit_deploy.sources.settings import preprocessing
from morvit_deploy.sources.settings.arguments import edges_of
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import COPIED, KIND, LAYER, LAYER_SCALE, copy, drop, part, refuse
from morvit_deploy.sources.tensors.reading import Contents

_GATED = "the MLP is gated (SwiGLU)"
_POOLINGS = {"token": "cls", "avg": "mean"}  # global_pool -> pooling; `fc_norm` then makes it mean_norm


class TimmViT(Family):
    """Every token runs every layer. LayerScale (`gamma_1` in DeiT III) is folded into the layer before it."""

    name = "timm_vit"
    title = "a ViT with timm's names (timm, DeiT)"
    signature: ClassVar[tuple[str, ...]] = (
        r"patch_embed\.proj\.weight",
        r"blocks\.\d+\.attn\.qkv\.weight",
        r"blocks\.\d+\.mlp\.fc1\.weight",
    )
    recipes = (COPIED, LAYER_SCALE)
    rules = (
        copy(rf"patch_embed\.proj\.{KIND}", r"patch_embed.proj.\g<kind>"),
        copy(r"cls_token", "cls_token"),
        copy(r"pos_embed", "pos_embed"),
        copy(r"(reg_token|register_tokens)", "register_tokens"),  # DINOv2's own, without positions
        drop(r"mask_token", "used only for masked-image training"),
        copy(
            rf"blocks\.(?P<i>\d+)\.{LAYER}\.{KIND}",
            r"layers.\g<i>.\g<rest>.\g<kind>",
        ),
        *(
            part(
                rf"blocks\.(?P<i>\d+)\.{scale}",
                "gamma",
                rf"layers.\g<i>.{layer}.weight",
                rf"layers.\g<i>.{layer}.bias",
            )
            for scale, layer in (
                (r"(?:ls1\.gamma|gamma_1)", "attn.proj"),
                (r"(?:ls2\.gamma|gamma_2)", "mlp.fc2"),
            )
        ),
        copy(rf"norm\.{KIND}", r"norm.\g<kind>"),
        copy(rf"pre_logits\.fc\.{KIND}", r"head.0.\g<kind>"),
        copy(rf"head\.{KIND}", r"head.\g<kind>"),
        copy(rf"fc_norm\.{KIND}", r"norm.\g<kind>"),
        refuse(r"attn_pool\..*", "it classifies by an attention pool"),
        refuse(
            r"(dist_token|head_dist\..*)",
            "its logits are the mean of two heads, of CLS and of a distillation token",
        ),
        refuse(r"norm_pre\..*", "it has a LayerNorm before the first block"),
        refuse(r"patch_embed\.norm\..*", "it has a LayerNorm after the patch projection"),
        refuse(r"blocks\.\d+\.attn\.[qk]_norm\..*", "it normalizes queries and keys"),
        refuse(r"blocks\.\d+\.(attn|mlp)\.norm\..*", "it has a LayerNorm inside the attention or the MLP"),
        refuse(r"blocks\.\d+\.mlp\.(fc1_g|fc1_x|w12|w3)\..*", _GATED),
        refuse(
            r"(rel_pos_bias|blocks\.\d+\.attn\.(rel_pos|relative_position)|rope).*",
            "it has relative or rotary positions",
        ),
    )

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        tensors, rows = self.built(contents)
        remarks = add_missing_head(tensors, questions)
        need(
            tensors,
            contents,
            self.title,
            *(name for name in NEEDED if name != "cls_token" or name in tensors),
        )
        stored = contents.config or {}
        arguments = _arguments(stored)
        _refuse_what_names_hide(contents, arguments, tensors)
        fields = width_fields(tensors, "layers.0")
        hold_to_config(contents, {"num_features": fields["embed_dim"], "num_classes": fields["num_classes"]})
        draft = Draft(fields, tensors, rows, remarks)
        placed = "register_tokens" not in contents.tensors
        settle_positions(draft, questions, sizes=_image_sizes(contents, arguments), placed=placed)
        settle_preprocess(
            draft.fields,
            questions,
            stored=preprocessing.of_timm(stored, edges_in(draft.fields), fields["in_channels"]),
            origin="config.json, pretrained_cfg",
            published="inception for timm's own ViTs, imagenet for DeiT",
            example="imagenet" if contents.arguments.model.startswith("deit") else "",
        )
        pooling = settle_pooling(questions, *_pooling(contents, arguments), contents.tensors)
        if pooling == "cls" and "cls_token" not in tensors:
            raise CheckpointError(
                f"{contents.path} is {self.title} without cls_token: --pooling: got cls, expected mean or "
                "mean_norm"
            )
        heads, origin = contents.arguments.find("num_heads")
        stated = arguments.get("num_heads")
        draft.fields |= {
            **PLAIN,
            **({} if pooling in (None, "cls") else {"pooling": pooling}),
            "num_heads": settle_heads(
                questions,
                heads if stated is None else stated,
                draft.fields["embed_dim"],
                origin if stated is None else "config.json",
            ),
            "norm_eps": questions.settle("norm_eps", published="1e-6", usual=1e-6),
            "activation": questions.settle("activation", published="gelu", usual="gelu"),
            "head_activation": settle_head_activation(questions, fields["num_classes"]),
            "head_hidden": settle_head(draft),
            "labels": _labels(stored, fields["num_classes"]),
        }
        settle_layers(draft, questions)
        return draft


def _image_sizes(contents: Contents, arguments: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return the image sizes (height, width) that config.json and the arguments in the file state, by origin."""
    # of the model, or of its pretrained weights
    edges = edges_of(arguments.get("img_size") or arguments.get("input_size"))
    return ({} if edges is None else {"config.json": edges}) | contents.arguments.image_sizes()


def _pooling(contents: Contents, arguments: dict[str, Any]) -> tuple[str | None, str]:
    """Return what the head reads and where this was read; other values of config.json were refused."""
    if arguments["global_pool"] is not None:
        return _POOLINGS[arguments["global_pool"]], "config.json, global_pool"
    return contents.arguments.pooling()


def _arguments(stored: dict[str, Any]) -> dict[str, Any]:
    """Return the model's arguments from all places of timm's config.json."""
    arguments = {"global_pool": stored.get("global_pool")}
    for name in ("pretrained_cfg", "model_args"):
        found = stored.get(name)
        arguments |= found if isinstance(found, dict) else {}
    return arguments


def _refuse_what_names_hide(
    contents: Contents, arguments: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Raise CheckpointError for models that have the tensor names of a plain ViT but compute something else."""
    problems = []
    if arguments["global_pool"] not in (*_POOLINGS, None):
        problems.append(
            f"global_pool {arguments['global_pool']!r} in config.json, expected {' or '.join(_POOLINGS)}"
        )
    if arguments.get("act_layer") not in ("gelu", None):
        problems.append(f"act_layer {arguments['act_layer']!r} in config.json, expected gelu")
    up, down = (tensors.get(f"layers.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    if up is not None and down is not None and up.shape[0] == 2 * down.shape[-1]:
        problems.append(f"blocks.0.mlp.fc1 has {up.shape[0]} outputs, fc2 {down.shape[-1]} inputs: {_GATED}")
    if problems:
        raise unsupported(contents, TimmViT.title, problems)


def _labels(stored: dict[str, Any], classes: int) -> list[str] | None:
    """Return the class names in config.json, None if it does not have one for each class."""
    names = stored.get("label_names")
    complete = (
        isinstance(names, list) and len(names) == classes and all(isinstance(name, str) for name in names)
    )
    return names if complete else None
