"""ViT, DeiT and DINOv2 as saved by Hugging Face Transformers, with the names of versions 4 and 5."""

from __future__ import annotations

from typing import Any

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.families.classifier import labels_of, settle_head_activation
from morvit_deploy.sources.families.family import Draft, Family
from morvit_deploy.sources.families.layers import settle_layers
from morvit_deploy.sources.families.settling import (
    NEEDED,
    PLAIN,
    add_missing_head,
    edges_in,
    hold_to_config,
    image_sizes,
    need,
    settle_heads,
    settle_positions,
    settle_preprocess,
    width_fields,
)
from morvit_deploy.sources.settings import preprocessing
from morvit_deploy.sources.settings.given import Questions
from morvit_deploy.sources.tensors.keymap import (
    COPIED,
    KIND,
    LAYER_SCALE,
    QKV,
    Rule,
    copy,
    drop,
    part,
    refuse,
)
from morvit_deploy.sources.tensors.reading import Contents

_AT = r"(?:(?:vit|deit|dinov2|dinov2_with_registers)\.)?"  # a ViTModel without classifier has no prefix
_ACTIVATIONS = {  # hidden_act -> the activation that it computes
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def _layer_rules(layer: str, names: dict[str, str]) -> list[Rule]:
    at = rf"{_AT}{layer}\.(?P<i>\d+)\."
    rules = []
    for source, target in names.items():
        target, _, slot = target.partition(":")
        key, place = rf"{at}{source}\.{KIND}", rf"layers.\g<i>.{target}.\g<kind>"
        rules.append(part(key, slot, place) if slot else copy(key, place))
    return rules


class TransformersViT(Family):
    """Every token runs every layer. DeiT's distillation token is converted to a register token."""

    name = "hf_vit"
    title = "a Hugging Face ViT, DeiT or DINOv2"
    signature = (
        rf"{_AT}embeddings\.patch_embeddings\.projection\.weight",
        rf"{_AT}(encoder\.layer|layers)\.\d+\.(layernorm_before|norm1)\.weight",
    )
    recipes = (COPIED, QKV, LAYER_SCALE)
    rules = (
        copy(rf"{_AT}embeddings\.patch_embeddings\.projection\.{KIND}", r"patch_embed.proj.\g<kind>"),
        copy(rf"{_AT}embeddings\.cls_token", "cls_token"),
        copy(rf"{_AT}embeddings\.(distillation_token|register_tokens)", "register_tokens"),
        copy(rf"{_AT}embeddings\.position_embeddings", "pos_embed"),
        drop(rf"{_AT}embeddings\.mask_token", "used only for masked-image training"),
        *_layer_rules(
            r"encoder\.layer",
            {
                r"attention\.attention\.query": "attn.qkv:q",
                r"attention\.attention\.key": "attn.qkv:k",
                r"attention\.attention\.value": "attn.qkv:v",
                r"attention\.output\.dense": "attn.proj",
                r"layernorm_before": "norm1",
                r"layernorm_after": "norm2",
                r"intermediate\.dense": "mlp.fc1",
                r"output\.dense": "mlp.fc2",
                # DINOv2; version 5 of Transformers names its projections as its other models do
                r"attention\.q_proj": "attn.qkv:q",
                r"attention\.k_proj": "attn.qkv:k",
                r"attention\.v_proj": "attn.qkv:v",
                r"attention\.o_proj": "attn.proj",
                r"norm1": "norm1",
                r"norm2": "norm2",
                r"mlp\.fc1": "mlp.fc1",
                r"mlp\.fc2": "mlp.fc2",
            },
        ),
        *(
            part(
                rf"{_AT}encoder\.layer\.(?P<i>\d+)\.layer_scale{n}\.lambda1",
                "gamma",
                rf"layers.\g<i>.{layer}.weight",
                rf"layers.\g<i>.{layer}.bias",
            )
            for n, layer in ((1, "attn.proj"), (2, "mlp.fc2"))
        ),
        refuse(
            rf"{_AT}encoder\.layer\.\d+\.mlp\.(gate_proj|up_proj|down_proj|weights_in|weights_out)\..*",
            "the MLP is gated (SwiGLU)",
        ),
        *_layer_rules(
            r"layers",
            {
                r"attention\.q_proj": "attn.qkv:q",
                r"attention\.k_proj": "attn.qkv:k",
                r"attention\.v_proj": "attn.qkv:v",
                r"attention\.o_proj": "attn.proj",
                r"layernorm_before": "norm1",
                r"layernorm_after": "norm2",
                r"mlp\.fc1": "mlp.fc1",
                r"mlp\.fc2": "mlp.fc2",
            },
        ),
        copy(rf"{_AT}layernorm\.{KIND}", r"norm.\g<kind>"),
        copy(rf"classifier\.{KIND}", r"head.\g<kind>"),
        drop(rf"{_AT}pooler\..*", "the image classifier uses the state of CLS, not the pooler"),
        refuse(
            r"(cls_classifier|distillation_classifier)\..*",
            "its logits are the mean of two heads, of CLS and of the distillation token",
        ),
        refuse(r"decoder\..*", "it is a masked-image model, not a classifier"),
    )

    def draft(self, contents: Contents, questions: Questions) -> Draft:
        tensors, rows = self.built(contents)
        remarks = add_missing_head(tensors, questions)
        need(tensors, contents, self.title, *NEEDED)
        draft = Draft(width_fields(tensors, "layers.0"), tensors, rows, remarks)
        _refuse_joined_head(draft)
        placed = "register_tokens" not in {key.rpartition(".")[2] for key in contents.tensors}
        size = settle_positions(draft, questions, "position_embeddings", image_sizes(contents), placed=placed)
        hold_to_config(contents, _numbers(draft, size))
        draft.fields |= self._rest(draft, contents, questions)
        settle_layers(draft, questions)
        return draft

    def _rest(self, draft: Draft, contents: Contents, questions: Questions) -> dict[str, Any]:
        """Return the fields that depend on neither shapes nor ties."""
        stored = contents.config or {}
        act, kind = stored.get("hidden_act"), str(stored.get("model_type"))
        if act is not None and act not in _ACTIVATIONS:
            raise CheckpointError(
                f"{contents.path}: got hidden_act {act!r} in config.json, expected one of {', '.join(_ACTIVATIONS)}"
            )
        size, channels = edges_in(draft.fields), draft.fields["in_channels"]
        unsupported = preprocessing.unsupported_of_transformers(contents.processor, size, channels)
        settle_preprocess(
            draft.fields,
            questions,
            stored=preprocessing.of_transformers(contents.processor, size, channels),
            origin="preprocessor_config.json",
            published="inception for google/vit-*, imagenet for facebook/deit-*"
            + (f"; {unsupported}" if unsupported else ""),
            example="" if unsupported else {"vit": "inception", "deit": "imagenet"}.get(kind, ""),
        )
        return {
            **PLAIN,
            "num_heads": settle_heads(
                questions, stored.get("num_attention_heads"), draft.fields["embed_dim"]
            ),
            "norm_eps": questions.settle(
                "norm_eps", stored=stored.get("layer_norm_eps"), published="1e-12", usual=1e-12
            ),
            "activation": questions.settle(
                "activation",
                stored=act and _ACTIVATIONS[act],
                origin=f"config.json, hidden_act {act!r}",
                published="gelu",
                usual="gelu",
            ),
            "head_activation": settle_head_activation(
                questions, draft.fields["num_classes"], stored.get("problem_type")
            ),
            "head_hidden": [],
            "labels": labels_of(contents.config, draft.fields["num_classes"]),
        }


def _refuse_joined_head(draft: Draft) -> None:
    """CheckpointError for DINOv2's classifier, which reads CLS and the mean of the patches side by side."""
    width, dim = draft.tensors["head.weight"].shape[1], draft.fields["embed_dim"]
    if width == 2 * dim:
        raise CheckpointError(
            f"classifier: got {width} inputs for states of {dim}: it reads CLS and the mean of the patches "
            "together, which is not supported; save the backbone (model.dinov2), and give --head-activation none for "
            "its features"
        )


def _numbers(draft: Draft, size: int | list[int]) -> dict[str, object]:
    """Return the sizes that the tensors imply, by the names in config.json."""
    layers = {name.split(".")[1] for name in draft.tensors if name.startswith("layers.")}
    return {
        "num_hidden_layers": len(layers),
        "hidden_size": draft.fields["embed_dim"],
        "intermediate_size": draft.fields["mlp_dim"],
        "patch_size": draft.fields["patch_size"],
        "image_size": size,
    }
