"""Families are detected from their keys; what is of none is compared with the nearest."""

from __future__ import annotations

import pytest
import source_models
import torch
from foreign_checkpoints import block, contents, drawn, vit
from third_party import third_party
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.model.checkpoint import init_model
from morvit_deploy.model.presets import preset
from morvit_deploy.sources.detection import FAMILIES, NAMES, recognise
from morvit_deploy.sources.families.family import evidence


def keys(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(1) for name in names}


def native() -> dict[str, Tensor]:
    return dict(init_model(preset("morvit_tiny_digits")).state_dict())


def hf(prefix: str = "vit.", layer: str = "encoder.layer") -> dict[str, Tensor]:
    patches = f"{prefix}embeddings.patch_embeddings.projection.weight"
    return keys(patches, f"{prefix}{layer}.0.layernorm_before.weight")


KNOWN = {
    "timm": (vit(), "timm_vit"),
    "edge": (dict(source_models.EdgeRecViT().state_dict()), "edge_recvit"),
    "vision-mor": (dict(source_models.VisionMoR().state_dict()), "vision_mor"),
    "native": (native(), "native"),
    "hf": (hf(), "hf_vit"),
    "hf, version 5": (hf("deit.", "layers"), "hf_vit"),
    "hf without a prefix": (hf(""), "hf_vit"),
    "torchvision": (
        keys("conv_proj.weight", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"),
        "torchvision_vit",
    ),
}


@pytest.mark.parametrize(("tensors", "family"), KNOWN.values(), ids=KNOWN)
def test_a_family_is_told_by_its_keys(tensors: dict[str, Tensor], family: str) -> None:
    found = recognise(contents(tensors))
    assert found.family.name == family
    assert found.because == evidence(found.family.signature, list(tensors))
    assert all(key in tensors for key in found.because)


def test_a_configuration_of_ours_says_so() -> None:
    found = recognise(contents(vit(), config={"format": "morvit/1"}))
    assert found.family.name == "native" and found.because == ["format 'morvit/1' in config.json"]


def test_the_family_that_is_asked_for() -> None:
    for name in NAMES:
        found = recognise(contents(vit()), name)
        assert found.family.name == name and found.because == [f"--family {name}"]
    with pytest.raises(ConfigError, match="--family: got 'timm', expected one of edge_recvit, "):
        recognise(contents(vit()), "timm")


def refusal(tensors: dict[str, Tensor]) -> str:
    with pytest.raises(CheckpointError) as caught:
        recognise(contents(tensors))
    assert str(caught.value).startswith("model.pth ")
    return str(caught.value)


LLAMA = {
    f"layers.{i}.{name}.weight": torch.ones(2)
    for i in range(2)
    for name in ("mlp.gate_proj", "mlp.up_proj", "input_layernorm", "self_attn.q_proj")
}


@pytest.mark.parametrize("prefix", ["", "model.", "model.base_model.", "vit."])
def test_the_official_code_and_its_forks_are_refused_with_the_reason(prefix: str) -> None:
    message = refusal({prefix + key: t for key, t in LLAMA.items()} | keys("lm_head.weight"))
    assert (
        "official Mixture-of-Recursions" in message and "RMSNorm" in message and "gated SiLU MLP" in message
    )
    assert f"{prefix}layers.0.mlp.gate_proj.weight" in message


def test_vision_mors_transformers_variant_is_refused_with_the_reason() -> None:
    message = refusal(keys("vit.encoder.first_block.attn.qkv.weight", "vit.encoder.routers.0.router.weight"))
    assert "MoRViTModel" in message and "head mask" in message


def test_two_families_in_one_file() -> None:
    message = refusal(dict(source_models.EdgeRecViT().state_dict()) | vit())
    assert "contains tensors of 2 families" in message
    assert "an Edge-RecViT checkpoint: mor_vit" in message and "a ViT with timm's names" in message
    assert "native" not in message and "morvit/1" not in message


def test_unrolled_layers_are_ours_only_with_what_timm_has_no_place_for() -> None:
    routed = vit() | keys("routers.0.0.weight")
    assert recognise(contents(routed)).family.name == "native"
    assert recognise(contents(vit() | keys("extra"))).family.name == "timm_vit", (
        "whose rules name the extra key"
    )


def test_student_and_teacher_in_one_file() -> None:
    both = {f"{who}.{key}": t for who in ("student", "teacher") for key, t in vit().items()}
    message = refusal(both | keys("center"))
    assert "contains 2 model(s) under a prefix" in message
    assert "student.*: a ViT with timm's names" in message and "teacher.*" in message
    assert "torch.save(model.state_dict(), PATH)" in message


def test_a_model_inside_another() -> None:
    message = refusal({f"backbone.{key}": t for key, t in vit().items()} | keys("neck.weight"))
    assert "contains 1 model(s) under a prefix, and other tensors (neck)" in message


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_other_architectures(name: str) -> None:
    model = third_party("timm").create_model(name, num_classes=3)
    message = refusal(dict(model.state_dict()))
    assert "belongs to no supported family" in message
    if name == "resnet18":
        assert "none of the names of its 122 tensors" in message and "conv1.weight [64, 3, 7, 7]" in message
    else:
        assert "The nearest is a ViT with timm's names (timm, DeiT) (timm_vit)" in message
        assert "missing: blocks.{i}.attn.qkv.weight" in message
        assert "unexpected: " in message and "more" in message


def test_the_nearest_family_is_that_of_the_most_keys() -> None:
    """Vision-MoR and timm know the ends of a ViT; one weight of a block is in timm's signature."""
    ends = {key: t for key, t in vit().items() if not key.startswith("blocks")}
    message = refusal(ends | keys("blocks.0.mlp.fc1.weight", *(f"stages.{i}.weight" for i in range(20))))
    assert "The nearest is a ViT with timm's names (timm, DeiT) (timm_vit)" in message
    assert "9 of its 29 tensors" in message and "missing: first_block" not in message


def test_families_that_are_equally_near_are_all_named() -> None:
    message = refusal(keys("classifier.weight", "classifier.bias", "other"))
    assert "Equally near are an Edge-RecViT checkpoint (edge_recvit) and a Hugging Face ViT" in message
    assert "which have the names of 2 of its 3 tensors" in message
    assert "missing of edge_recvit: mor_vit." in message and "missing of hf_vit: " in message
    assert "unexpected: other [1]" in message


def test_part_of_a_family_says_what_it_lacks() -> None:
    lacking = {key: t for key, t in source_models.EdgeRecViT().state_dict().items() if ".router." not in key}
    message = refusal(lacking)
    assert "The nearest is an Edge-RecViT checkpoint" in message
    assert "missing: mor_vit.router.router." in message


def test_blocks_alone() -> None:
    message = refusal({f"blocks.0.{name}": t for name, t in block(0).items()})
    assert "timm_vit" in message and "missing: patch_embed.proj.weight" in message


def test_signatures_tell_families_apart() -> None:
    """No checkpoint is of two families, though timm's names are ours, too."""
    for tensors, family in KNOWN.values():
        told = [
            one.name for one in FAMILIES if one.named and evidence(one.signature, list(tensors)) is not None
        ]
        assert [name for name in told if not (name == "native" and "timm_vit" in told)] == [family]


def test_names_are_matched_from_their_beginning() -> None:
    tensors = drawn({f"x.{key}": tuple(t.shape) for key, t in vit().items()}, 0) | keys("y")
    assert "x.*: a ViT with timm's names" in refusal(tensors)


def test_lv_vit_is_refused_by_name() -> None:
    message = refusal(
        vit() | keys("patch_embed.conv1.weight", "aux_head.weight", "score_predictor.0.in_conv.0.weight")
    )
    assert (
        "is an LV-ViT, or DynamicViT on one" in message and "a second head reads the patch tokens" in message
    )
