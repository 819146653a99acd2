"""Families of recursive ViTs, the native one among them: settings, ties, routers, and each refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import source_models
import torch
from family_drafts import EDGE_CONFIG, EDGE_SAID, Tensors, draft, edge, refused
from foreign_checkpoints import CLASSES, DIM, HEADS, MLP, PATCH, SIZE, block, vit
from source_models import randomise

from morvit_deploy.sources.families import native
from morvit_deploy.sources.families.vision_mor import capacities
from morvit_deploy.sources.settings.given import Given

# ---- Edge-RecViT


def test_edge_is_asked_for_what_no_file_says() -> None:
    message = refused("edge_recvit", edge(dora=True), Given(), config=EDGE_CONFIG)
    assert "--dora-alpha  published: the rank, here 4" in message
    assert "--preprocess  published: cifar10" in message and "--norm-eps" not in message
    assert message.endswith("--dora-alpha 4 --preprocess cifar10")
    message = refused("edge_recvit", edge(), Given())
    for option in ("--num-heads", "--norm-eps", "--activation", "--preprocess"):
        assert option in message
    assert "--dora-alpha" not in message


def test_edge_takes_relu_for_every_other_name() -> None:
    made = draft(
        "edge_recvit", edge(), Given(preprocess="cifar10"), config=EDGE_CONFIG | {"hidden_act": "swish"}
    )
    assert made.fields["activation"] == "relu"


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "intermediate_size", "patch_size", "image_size"]
)
def test_edge_sizes_are_held_to_the_configuration_beside_them(name: str) -> None:
    message = refused("edge_recvit", edge(), Given(preprocess="cifar10"), config=EDGE_CONFIG | {name: 99})
    assert f"describe different models:\n  - {name}: 99 in config.json" in message


def test_edge_drops_the_router_of_its_loss() -> None:
    extra = {"mor_vit.mlp_router.0.weight": torch.ones(2, 2), "mlp_router.1.bias": torch.ones(2)}
    made = draft("edge_recvit", edge() | extra, Given(**EDGE_SAID))
    assert {row.source for row in made.rows if row.target is None} == extra.keys()


def test_edge_without_positions() -> None:
    tensors = edge()
    del tensors["mor_vit.embeddings.position_embeddings"]
    made = draft(
        "edge_recvit", tensors, Given(preprocess="cifar10"), config=EDGE_CONFIG | {"use_abs_pos_emb": False}
    )
    assert made.tensors["pos_embed"].shape == (1, 17, 16) and not made.tensors["pos_embed"].any()
    assert made.remarks == ["use_abs_pos_emb is false in config.json: position embeddings are zero"]
    for config in (EDGE_CONFIG, {"use_abs_pos_emb": False}, {"use_abs_pos_emb": False, "image_size": "x"}):
        assert "without pos_embed" in refused("edge_recvit", tensors, Given(**EDGE_SAID), config=config)


PROJ = "mor_vit.block_shared.attention.proj."
HALF: dict[str, tuple[Callable[[Tensors], object], str]] = {
    **{
        slot: (lambda t, slot=slot: t.pop(PROJ + slot), f"missing {slot}")
        for slot in ("dora_A", "dora_B", "rho", "W_hat_init")
    },
    "base weight": (lambda t: t.pop(PROJ + "base_layer.weight"), "missing base"),
    "no A and no B": (
        lambda t: (t.pop(PROJ + "dora_A"), t.pop(PROJ + "dora_B")),
        "missing dora_A, missing dora_B",
    ),
    "merged beside it": (
        lambda t: t.update({PROJ + "weight": t.pop(PROJ + "base_layer.weight")}),
        f"missing base, unexpected {PROJ}weight",
    ),
    "both biases": (lambda t: t.update({PROJ + "bias": torch.ones(16)}), "two sources for one tensor"),
    "another base": (lambda t: t[PROJ + "base_layer.weight"].mul_(-1), "half-merged DoRA"),
}


@pytest.mark.parametrize(("damage", "why"), HALF.values(), ids=HALF)
def test_half_merged_dora(damage: Callable[[Tensors], object], why: str) -> None:
    tensors = edge(dora=True)
    draft("edge_recvit", dict(tensors), Given(dora_alpha=6.0, **EDGE_SAID))
    damage(tensors)
    said_alpha = {"dora_alpha": 6.0} if any("dora_A" in k or "dora_B" in k for k in tensors) else {}
    assert why in refused("edge_recvit", tensors, Given(**said_alpha, **EDGE_SAID))


def test_an_alpha_without_dora_is_said_in_vain() -> None:
    assert "--dora-alpha: has no effect" in refused("edge_recvit", edge(), Given(dora_alpha=4.0, **EDGE_SAID))


# ---- Vision-MoR


def mor() -> Tensors:
    return dict(randomise(source_models.VisionMoR(), seed=1).state_dict())


MOR_SAID: dict[str, Any] = {
    "preprocess": "imagenet", "norm_eps": 1e-5, "num_heads": 2, "activation": "gelu", "image_size": 32,
}  # fmt: skip


def test_vision_mor_is_asked_how_it_selects_and_gates() -> None:
    message = refused("vision_mor", mor(), Given())
    assert "--selection   published: flat" in message and "--gate        published: hard" in message
    assert "--capacity" not in message, "its buffer says it"
    without = {key: t for key, t in mor().items() if key != "capacity_factors"}
    assert "--capacity 17,11,5" in refused("vision_mor", without, Given())


def test_vision_mor_nested_is_plain_expert_choice() -> None:
    said_so = Given(selection="nested", gate="block", alpha=1.0, **MOR_SAID)
    made = draft("vision_mor", mor(), said_so)
    assert made.fields["routing"] == "expert_choice" and made.fields["gate"] == "block"
    assert made.fields["capacity"] == [16, 10, 5], "of the patches alone"
    assert "capacity_factors" not in made.tensors
    assert "use_kv_sharing" in made.remarks[0] and "ranked by router logits" in made.remarks[1]


def test_float32_sigmoids_saturate_where_the_remark_says() -> None:
    assert torch.sigmoid(torch.tensor([17.5, 40.0])).unique().tolist() == [1.0]
    assert torch.sigmoid(torch.tensor([12.0, 13.0])).unique().numel() == 2


def test_a_hard_gate_has_no_alpha() -> None:
    message = refused("vision_mor", mor(), Given(selection="nested", gate="hard", alpha=1.0, **MOR_SAID))
    assert "--alpha: has no effect" in message


def test_capacities_are_counted_in_float32_as_its_code_does() -> None:
    assert capacities(torch.tensor([1.0, 2 / 3, 1 / 3, 0.001]), 65) == (65, 43, 21, 1)
    assert capacities(torch.tensor([0.7]), 10) == (7,), "in float64 0.7 of float32 is a little less"


def test_as_many_capacities_as_routers() -> None:
    without = {key: t for key, t in mor().items() if key != "capacity_factors"}
    given = Given(selection="nested", gate="hard", capacity=(9, 3), **MOR_SAID)
    assert "got 2 capacities, expected one for each of 3 routers" in refused("vision_mor", without, given)


def test_a_router_that_is_missing() -> None:
    tensors = mor()
    del tensors["routers.1.router.weight"], tensors["routers.1.router.bias"]
    assert "routers: got 2, numbered up to 2, but number 1 is missing" in refused(
        "vision_mor", tensors, Given()
    )


# ---- native


NATIVE: dict[str, Any] = {
    "format": "morvit/1", "image_size": SIZE, "patch_size": PATCH, "in_channels": 3, "num_classes": CLASSES,
    "embed_dim": DIM, "num_heads": HEADS, "mlp_dim": MLP, "qkv_bias": True, "norm_eps": 1e-6, "activation": "gelu",
    "sharing": "cycle", "cycle_depth": 1, "num_recursions": 3, "routing": "none", "router": None, "gate": "hard",
    "attention_scope": "active", "capacity": None, "head_hidden": [], "labels": None,
    "preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": 20, "interpolation": "bicubic"},
}  # fmt: skip  # a block of fields
EXPERT: dict[str, Any] = NATIVE | {
    "routing": "expert_choice", "gate": "block", "capacity": [12, 6, 3],
    "router": {"hidden": [], "activation": "sigmoid", "bias": True, "shared": True, "alpha": 1.0},
}  # fmt: skip


def rolled() -> Tensors:
    """The cycle once, as morvit/1 holds it."""
    return vit("") | {f"cycle.0.{name}": t for name, t in block(ord("a")).items()}


def test_native_names_without_a_configuration() -> None:
    message = refused("native", rolled(), Given())
    assert "no config.json of that format next to it" in message and "docs/format.md" in message


def test_unrolled_native_layers_that_are_copies() -> None:
    made = draft("native", vit("aaa"), Given(), config=NATIVE)
    assert made.tied == "3 unrolled layers; the copies are bit-identical"
    assert torch.equal(made.tensors["cycle.0.mlp.fc1.weight"], vit("aaa")["blocks.2.mlp.fc1.weight"])
    assert not any(name.startswith("layers.") for name in made.tensors)


def test_unrolled_native_layers_that_are_none() -> None:
    message = refused("native", vit("aab"), Given(), config=NATIVE)
    assert "12 tensor(s) differ" in message and "layer 2 and layer 0, attn.proj.bias: max |Δ|" in message
    assert "--sharing" not in message and '"none"' in message and "in config.json" in message
    assert "2 blocks in the file, expected 3" in refused("native", vit("aa"), Given(), config=NATIVE)


def test_native_layers_in_both_forms() -> None:
    tensors = vit("aaa") | {f"cycle.0.{name}": t for name, t in block(ord("b")).items()}
    message = refused("native", tensors, Given(), config=NATIVE)
    assert "unrolled layers and also cycle.0" in message


def test_native_options_in_vain() -> None:
    message = refused("native", rolled(), Given(norm_eps=1e-6, sharing="cycle"), config=NATIVE)
    assert "--norm-eps: has no effect" in message and "--sharing: has no effect" in message


def test_native_keeps_the_provenance_it_had() -> None:
    made = draft("native", rolled(), Given(), config=NATIVE | {"provenance": {"family": "timm_vit"}})
    assert made.before == {"family": "timm_vit"} and "provenance" not in made.fields


def test_native_keeps_its_thresholds_at_any_size() -> None:
    owning = EXPERT | {"thresholds": [0.5, 0.25, None], "capacity": [12, 6, 6]}
    given = Given(image_size=24, capacity=(27, 14, 14), preprocess="imagenet")
    for told, capacity in ((Given(), [12, 6, 6]), (given, [27, 14, 14])):
        fields = draft("native", rolled(), told, config=owning).fields
        assert fields["thresholds"] == [0.5, 0.25, None] and fields["capacity"] == capacity
    assert "thresholds" not in draft("native", rolled(), Given(), config=EXPERT).fields


def test_native_at_another_size_asks_for_what_depends_on_it() -> None:
    message = refused("native", rolled(), Given(image_size=24), config=EXPERT)
    assert "[12, 6, 3] of 16 patch tokens; now there are 36" in message
    assert "--capacity 27,14,7" in message and "resize 20 at 16" in message
    given = Given(image_size=24, capacity=(27, 14, 7), preprocess="imagenet")
    made = draft("native", rolled(), given, config=EXPERT)
    assert made.fields["capacity"] == [27, 14, 7] and made.fields["image_size"] == 24
    assert made.tensors["pos_embed"].shape == (1, 37, DIM)


def test_no_message_names_an_older_format_as_the_limit() -> None:
    """A component is refused because the newest format lacks it; what names both formats is a native checkpoint."""
    limits = re.compile(r"morvit/1[^\n]*(does not|cannot|has one)|while morvit/1")
    sources = Path(native.__file__).parents[1]
    assert [path.name for path in sorted(sources.rglob("*.py")) if limits.search(path.read_text())] == []
