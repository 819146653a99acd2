"""Families of plain ViTs: what is read off tensors and config.json, and each refusal with its reason."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from family_drafts import EDGE_CONFIG, FAMILY, Tensors, draft, edge, hf, refused
from foreign_checkpoints import (
    BLOCK,
    CLASSES,
    DIM,
    GRID,
    HEADS,
    MLP,
    PATCH,
    SIZE,
    contents,
    drawn,
    said,
    vit,
)
from source_models import randomise
from third_party import third_party

from morvit_deploy.model.checkpoint import build_model
from morvit_deploy.model.config import parse_config
from morvit_deploy.sources.settings.given import Given, Questions

# ---- torchvision


def torchvision_vit(**options: Any) -> Any:
    models = third_party("torchvision").models
    model = models.VisionTransformer(
        image_size=SIZE, patch_size=PATCH, num_layers=2, num_heads=HEADS, hidden_dim=DIM, mlp_dim=MLP,
        num_classes=CLASSES, **options,
    )  # fmt: skip  # two lines read better than eight
    return randomise(model, seed=7)


def test_a_torchvision_model_with_a_representation_layer() -> None:
    model = torchvision_vit(representation_size=6)
    made = draft(
        "torchvision_vit",
        dict(model.state_dict()),
        said(preprocess="torchvision", image_size=SIZE, pooling=None),
    )
    assert made.fields["head_hidden"] == [6] and made.fields["preprocess"]["interpolation"] == "bilinear"
    config = parse_config(json.dumps(made.fields))
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    ours = build_model(config, made.tensors, Path("model.pth"))(images).logits
    assert (ours - model(images)).abs().max() < 1e-5


def test_names_of_torchvision_below_0_13() -> None:
    state = dict(torchvision_vit().state_dict())
    old = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t
        for key, t in state.items()
    }
    assert old.keys() != state.keys()
    new, made = (
        draft("torchvision_vit", one, said(preprocess="torchvision", image_size=SIZE, pooling=None)).tensors
        for one in (state, old)
    )
    assert new.keys() == made.keys() and all(torch.equal(new[name], made[name]) for name in new)


def test_torchvision_models_that_cannot_be_said() -> None:
    state = dict(torchvision_vit().state_dict())
    stem = {f"conv_proj.conv_bn_relu_{i}.0.weight": torch.ones(1) for i in range(2)}
    assert "stem of several convolutions" in refused("torchvision_vit", state | stem)
    assert "saved without its head" in refused(
        "torchvision_vit", {k: t for k, t in state.items() if not k.startswith("heads")}
    )


# ---- timm


def test_the_names_that_deit_3_gives_to_layer_scale() -> None:
    scales = {f"blocks.{i}.gamma_{k}": torch.full((DIM,), 0.5 * k) for i in range(3) for k in (1, 2)}
    timms = {
        key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): t for key, t in scales.items()
    }
    own, other = (draft("timm_vit", vit("abc") | one, said()).tensors for one in (scales, timms))
    assert all(torch.equal(own[name], other[name]) for name in other) and own.keys() == other.keys()
    assert torch.equal(own["cycle.0.attn.proj.bias"], 0.5 * vit("abc")["blocks.0.attn.proj.bias"])
    both = vit("abc") | scales | timms
    assert "two sources for one tensor" in refused("timm_vit", both)


def test_timm_fields_are_read_off_the_tensors() -> None:
    made = draft("timm_vit", vit("abc"), said())
    expected = {
        "image_size": SIZE, "patch_size": PATCH, "embed_dim": DIM, "mlp_dim": MLP, "num_heads": HEADS,
        "qkv_bias": True, "num_classes": CLASSES, "sharing": "none", "cycle_depth": 3, "num_recursions": 1,
        "routing": "none", "head_hidden": [], "labels": None,
    }  # fmt: skip  # a block of fields
    assert expected.items() <= made.fields.items()
    assert torch.equal(made.tensors["cycle.1.mlp.fc2.bias"], vit("abc")["blocks.1.mlp.fc2.bias"])
    assert {row.source for row in made.rows} == set(vit("abc"))


@pytest.mark.parametrize(
    ("layers", "sharing", "depth", "times"),
    [("aaa", "cycle", 1, 3), ("xaay", "middle_cycle", 1, 2), ("abab", "cycle", 2, 2), ("abc", "none", 3, 1)],
)
def test_bit_identical_layers_are_one_block(layers: str, sharing: str, depth: int, times: int) -> None:
    made = draft("timm_vit", vit(layers), said())
    assert (made.fields["sharing"], made.fields["cycle_depth"], made.fields["num_recursions"]) == (
        sharing,
        depth,
        times,
    )
    assert ("bit-identical" in made.tied) == (sharing != "none")
    copies = sum("bit-identical to layer" in row.how for row in made.rows)
    assert copies == len(BLOCK) * (len(layers) - len(set(layers)))


def test_a_tie_that_is_asked_for_is_proved() -> None:
    made = draft("timm_vit", vit("abab"), said(sharing="cycle", cycle_depth=2))
    assert made.fields["num_recursions"] == 2
    message = refused("timm_vit", vit("abab"), said(sharing="cycle"))
    assert "layer 1 and layer 0" in message and "omit --sharing" in message
    message = refused("timm_vit", vit("aaa"), said(sharing="middle_cycle", cycle_depth=2))
    assert "got 3 layers in the file, 1 of them in cycles, expected a multiple of" in message


def test_ties_may_be_left_apart() -> None:
    made = draft("timm_vit", vit("aaa"), said(sharing="none"))
    assert made.fields["sharing"] == "none" and made.tied == "3 layers, none of them tied"
    assert "--cycle-depth: has no effect" in refused(
        "timm_vit", vit("aaa"), said(sharing="none", cycle_depth=1)
    )
    assert "--cycle-depth: has no effect" in refused("timm_vit", vit("aaa"), said(cycle_depth=1))


def test_a_near_tie_is_loaded_apart_with_a_remark() -> None:
    tensors = vit("xaay")
    tensors["blocks.2.mlp.fc1.weight"] = tensors["blocks.2.mlp.fc1.weight"] + 0.5
    made = draft("timm_vit", tensors, said())
    assert made.fields["sharing"] == "none"
    assert made.remarks == [
        "layers 1 and 2 are equal except for mlp.fc1.weight (max |Δ| 0.5); loaded as two blocks"
    ]


REFUSED_BY_TIMM: dict[str, tuple[tuple[str, ...], str]] = {
    "distilled": (("dist_token", "head_dist.weight"), "mean of two heads"),
    "attention pool": (("attn_pool.latent",), "attention pool"),
    "norm before (CLIP)": (("norm_pre.weight",), "LayerNorm before the first block"),
    "norm of patches": (("patch_embed.norm.weight",), "after the patch projection"),
    "qk-norm": (("blocks.0.attn.q_norm.weight", "blocks.0.attn.k_norm.weight"), "normalizes queries and keys"),
    "norm in attention": (("blocks.0.attn.norm.weight",), "inside the attention or the MLP"),
    "norm in MLP": (("blocks.1.mlp.norm.bias",), "inside the attention or the MLP"),
    "SwiGLU": (("blocks.0.mlp.fc1_g.weight",), "gated (SwiGLU)"),
    "BEiT": (("blocks.0.attn.relative_position_bias_table",), "relative or rotary positions"),
    "relative positions": (("blocks.0.attn.rel_pos.mlp.fc1.weight",), "relative or rotary positions"),
    "EVA": (("rope.bands",), "relative or rotary positions"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("names", "why"), REFUSED_BY_TIMM.values(), ids=REFUSED_BY_TIMM)
def test_timm_models_that_cannot_be_said(names: tuple[str, ...], why: str) -> None:
    message = refused("timm_vit", vit() | {name: torch.ones(DIM) for name in names})
    assert (
        "with components that morvit/2 does not support" in message and why in message and names[0] in message
    )
    draft("timm_vit", vit(), said())


REAL = {
    "deit_tiny_distilled_patch16_224": "mean of two heads",
    "vit_base_patch16_clip_224": "LayerNorm before the first block",
    "vit_base_patch16_siglip_224": "attention pool",
    "vit_small_patch16_224 qk": "normalizes queries and keys",
    "vit_giant_patch14_dinov2": "gated (SwiGLU)",
    "vit_relpos_small_patch16_224": "relative or rotary positions",
    "vit_small_patch16_224 no CLS": "without cls_token: --pooling: got cls, expected mean or mean_norm",
    "vit_small_patch16_224 headless": "saved without its head",
}


@pytest.mark.parametrize("name", REAL)
def test_real_timm_models_that_cannot_be_said(name: str) -> None:
    options = {
        "qk": {"qk_norm": True}, "headless": {"num_classes": 0},
        "no CLS": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    }  # fmt: skip
    arch, _, what = name.partition(" ")
    make = third_party("timm").create_model
    size = {} if "relpos" in arch else {"embed_dim": 12, "num_heads": 2}
    model = make(arch, **({"num_classes": 3, "depth": 1} | size | options.get(what, {})))
    message = refused("timm_vit", dict(model.state_dict()))
    assert REAL[name] in message


def test_a_gated_mlp_behind_plain_names() -> None:
    tensors = vit("a")
    tensors |= drawn({"blocks.0.mlp.fc1.weight": (2 * MLP, DIM), "blocks.0.mlp.fc1.bias": (2 * MLP,)}, 0)
    assert "gated (SwiGLU)" in refused("timm_vit", tensors)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "maximum": ({"global_pool": "max"}, "global_pool 'max' in config.json, expected token or avg"),
    "average": ({"global_pool": "avg"}, "--pooling: got cls, expected mean as in config.json, global_pool"),
    "average by argument": (
        {"global_pool": "token", "model_args": {"global_pool": "avg"}}, "--pooling: got cls, expected mean"
    ),
    "another width": ({"num_features": 768}, "num_features: 768 in config.json, 8 in the tensors"),
    "other classes": ({"num_classes": 1000}, "num_classes: 1000 in config.json, 5 in the tensors"),
    "another activation": ({"model_args": {"act_layer": "quick_gelu"}}, "act_layer 'quick_gelu'"),
    "other heads": ({"model_args": {"num_heads": 4}}, "--num-heads: got 2, expected 4 as in config.json"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("config", "why"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_of_another_model(config: dict[str, Any], why: str) -> None:
    assert why in refused("timm_vit", vit(), config=config)


def test_what_timms_configuration_says_is_not_asked() -> None:
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.8, "interpolation": "bilinear"}
    names = [f"name {i}" for i in range(CLASSES)]
    config = {
        "num_classes": CLASSES,
        "model_args": {"num_heads": 2},
        "pretrained_cfg": cfg,
        "label_names": names,
    }
    made = draft("timm_vit", vit(), said(preprocess=None, num_heads=None), config=config)
    assert made.fields["preprocess"]["resize"] == math.floor(SIZE / 0.8)
    assert made.fields["labels"] == names and made.fields["num_heads"] == 2


def test_a_stored_preprocess_may_be_overruled_and_it_is_recorded() -> None:
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.8, "interpolation": "bilinear"}
    questions = Questions(said())
    FAMILY["timm_vit"].draft(contents(vit(), config={"pretrained_cfg": cfg}), questions)
    origin = questions.settled["preprocess"].origin
    assert origin == "command line, --preprocess imagenet, instead of config.json, pretrained_cfg"


# ---- every family: tensors that are no weights, or not all there


BROKEN: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "NaN": (lambda t: t["head.weight"].view(-1)[0].fill_(math.nan), "head.weight: 1 of 40 values are NaN"),
    "infinite": (lambda t: t["cls_token"].fill_(math.inf), "cls_token: 8 of 8 values"),
    "int8": (lambda t: t.update({"head.bias": t["head.bias"].to(torch.int8)}), "head.bias: int8, expected float32"),
    "float8": (lambda t: t.update({"head.bias": t["head.bias"].to(torch.float8_e4m3fn)}), "head.bias: float8"),
    "complex": (lambda t: t.update({"head.bias": t["head.bias"].to(torch.complex64)}), "head.bias: complex64"),
    "sparse": (lambda t: t.update({"head.weight": t["head.weight"].to_sparse()}), "head.weight: sparse_coo"),
    "nothing in it": (lambda t: t.update({"pos_embed": torch.ones(1, 0, DIM)}), r"pos_embed: shape [1, 0, 8]"),
    "a number": (lambda t: t.update({"norm.bias": torch.tensor(1.0)}), "norm.bias: shape []"),
    "flat patches": (lambda t: t.update({"patch_embed.proj.weight": torch.ones(DIM, 48)}), "expected 4 axes"),
    "flat CLS": (lambda t: t.update({"cls_token": torch.ones(DIM)}), "cls_token is [8], expected 3 axes"),
    "flat head": (lambda t: t.update({"head.weight": torch.ones(DIM)}), "head.weight is [8], expected 2 axes"),
    "no patches": (lambda t: t.pop("patch_embed.proj.weight"), "without patch_embed.proj.weight"),
    "no head": (lambda t: t.pop("head.weight"), "saved without its head"),
    "no positions": (lambda t: t.pop("pos_embed"), "learned position embeddings"),
    "two things missing": (lambda t: (t.pop("pos_embed"), t.pop("cls_token")), "without pos_embed"),
    "no first layer": (lambda t: [t.pop(k) for k in list(t) if "blocks.0." in k], "without layers.0"),
    "a hole": (lambda t: [t.pop(k) for k in list(t) if "blocks.1." in k], "up to 2, but number 1 is missing"),
    "a far layer": (lambda t: t.update({"blocks.999999999.norm1.bias": torch.ones(DIM)}), "up to 999999999"),
    "no square": (lambda t: t.update({"pos_embed": torch.ones(1, 99, DIM)}), "99 positions fit 36x44"),
    "misspelt": (lambda t: t.update({"blocks.0.norm1.weigth": torch.ones(DIM)}), "(near blocks.0.norm1.weight)"),
    "not ours": (lambda t: t.update({"extra": torch.ones(DIM)}), "unexpected: extra"),
    "registers": (lambda t: t.update({"reg_token": torch.ones(DIM)}), "register tokens: got shape [8]"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("damage", "why"), BROKEN.values(), ids=BROKEN)
def test_tensors_that_are_wrong_are_named(damage: Callable[[Tensors], object], why: str) -> None:
    tensors = vit("abc")
    damage(tensors)
    assert why in refused("timm_vit", tensors)


# ---- Hugging Face


def test_hf_sizes_are_held_to_the_configuration_beside_them() -> None:
    tensors, config = hf()
    made = draft("hf_vit", tensors, Given(preprocess="imagenet"), config=config)
    assert made.fields["norm_eps"] == 1e-12 and made.fields["num_heads"] == HEADS
    pair = config | {"image_size": [SIZE, SIZE], "patch_size": [PATCH, PATCH]}
    assert draft("hf_vit", tensors, Given(preprocess="imagenet"), config=pair).fields == made.fields
    for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "patch_size", "image_size"):
        message = refused("hf_vit", tensors, Given(preprocess="imagenet"), config=config | {name: 99})
        assert f"describe different models:\n  - {name}: 99 in config.json" in message
    message = refused(
        "hf_vit", tensors, Given(preprocess="imagenet"), config=config | {"image_size": [SIZE, 99]}
    )
    assert "image_size" in message


def test_hf_models_that_cannot_be_said() -> None:
    tensors, config = hf("DeiT", "ForImageClassificationWithTeacher")
    assert "mean of two heads" in refused("hf_vit", tensors, Given(preprocess="imagenet"), config=config)
    tensors, config = hf(of="Model")
    assert any(key.startswith("embeddings.") for key in tensors)
    message = refused("hf_vit", tensors, Given(preprocess="imagenet"), config=config)
    assert "saved without its head" in message
    tensors, config = hf()
    message = refused(
        "hf_vit", tensors, Given(preprocess="imagenet"), config=config | {"hidden_act": "quick_gelu"}
    )
    assert "hidden_act 'quick_gelu' in config.json, expected one of gelu" in message
    message = refused("hf_vit", tensors | {"decoder.mask_token": torch.ones(1)}, Given(preprocess="imagenet"))
    assert "masked-image model" in message


def test_a_masked_image_tokens_and_a_pooler_are_dropped_by_name() -> None:
    tensors, config = hf()
    extra = {
        "vit.embeddings.mask_token": torch.ones(1, 1, DIM),
        "vit.pooler.dense.weight": torch.ones(DIM, DIM),
    }
    made = draft("hf_vit", tensors | extra, Given(preprocess="imagenet"), config=config)
    told = {row.source: row.how for row in made.rows if row.target is None}
    assert told.keys() == extra.keys() and all(how.startswith("dropped: ") for how in told.values())


def test_a_layer_without_a_key_bias_is_half_a_layer() -> None:
    tensors, config = hf()
    key = next(key for key in tensors if key.endswith("k_proj.bias") or key.endswith("attention.key.bias"))
    del tensors[key]
    message = refused("hf_vit", tensors, Given(preprocess="imagenet"), config=config)
    assert "incomplete layers.0.attn.qkv.bias (q, k, v concatenated)" in message and "missing k" in message


def test_class_names_but_no_placeholders() -> None:
    tensors, config = hf()
    names = {str(i): f"kind {i}" for i in range(CLASSES)}
    given = Given(preprocess="imagenet")
    assert draft("hf_vit", tensors, given, config=config).fields["labels"] is None
    assert (
        draft("hf_vit", tensors, given, config=config | {"id2label": names}).fields["labels"][4] == "kind 4"
    )


# ---- image size


@pytest.mark.parametrize("prefix", [0, 2], ids=["plain", "registers"])
@pytest.mark.parametrize("size", [8, 16, 24])
def test_another_image_size_is_timms_own(size: int, prefix: int) -> None:
    tensors = vit()
    if prefix:
        tensors |= drawn({"reg_token": (1, prefix, DIM), "pos_embed": (1, 1 + prefix + GRID**2, DIM)}, 5)
    made = draft("timm_vit", tensors, said(image_size=size, trained_size=SIZE))
    resample = third_party("timm").layers.resample_abs_pos_embed
    wanted = resample(tensors["pos_embed"], new_size=[size // PATCH] * 2, num_prefix_tokens=1 + prefix)
    found = made.tensors["pos_embed"]
    assert torch.equal(found[:, 0], wanted[:, 0]) and torch.equal(found[:, 1:], wanted[:, 1 + prefix :])
    if prefix:
        assert torch.equal(made.tensors["register_tokens"], tensors["reg_token"] + wanted[:, 1 : 1 + prefix])
        assert made.fields["register_tokens"] == prefix
    assert made.fields["image_size"] == size
    assert [r.split(" (")[0] for r in made.remarks] == (
        [] if size == SIZE else [f"position embeddings resampled from 4×4 to {size // 4}×{size // 4} patches"]
    )


def test_image_sizes_of_the_other_families() -> None:
    made = draft("edge_recvit", edge(), Given(preprocess="cifar10", image_size=64), config=EDGE_CONFIG)
    assert made.tensors["pos_embed"].shape == (1, 65, 16), "config.json's image_size is that of training"
    tensors, config = hf("DeiT")
    made = draft("hf_vit", tensors, Given(preprocess="imagenet", image_size=24), config=config)
    assert made.fields["image_size"] == 24 and made.fields["register_tokens"] == 1
    for family, held, fields in (("edge_recvit", edge(), EDGE_CONFIG), ("hf_vit", tensors, config)):
        message = refused(family, held, Given(preprocess="imagenet", image_size=30), config=fields)
        assert "--image-size: got 30, expected a multiple of the patch size" in message
