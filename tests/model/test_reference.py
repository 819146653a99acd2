"""The reference against a second statement of the model, against torch's own layers, and rule by rule."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from config_matrix import EVERY, OPTIONS, OWNING, named
from flat_models import CLS_RUNS, wandering_model
from oracle import Oracle
from tiny_models import EXACT, make_config, normalised, random_model, random_pixels, zero
from torch import Tensor, nn

from morvit_deploy.model.config import Config
from morvit_deploy.model.presets import PRESETS, preset
from morvit_deploy.model.reference import MoRViT


def embedded(config: Config, images: int = 2) -> Tensor:
    return normalised(config, random_pixels(config, images))


@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_equals_the_second_statement(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    model = random_model(config, seed=3, dtype=torch.float64)
    images = embedded(config)
    outcome = model(images)
    assert not outcome.depth.is_floating_point()
    for image, logits, depth in zip(images, outcome.logits, outcome.depth, strict=True):
        expected, steps = Oracle(model)(image.numpy())
        assert depth.tolist() == steps
        assert (logits - torch.from_numpy(expected)).abs().max() <= EXACT


@pytest.mark.parametrize("sharing", ["none", "cycle", "middle_cycle"])
def test_without_routing_it_is_torchs_encoder(sharing: str) -> None:
    config = make_config(routing="none", sharing=sharing, cycle_depth=2)
    model = random_model(config, dtype=torch.float64)
    images = embedded(config)
    x = model.embed(images)
    for _, block in model.layers():
        x = encoder_layer(config, block.state_dict())(x)
    assert (model.classify(x[:, 0]) - model(images).logits).abs().max() <= EXACT


def encoder_layer(config: Config, weights: dict[str, Tensor]) -> nn.Module:
    """torch.nn's own pre-norm layer with a block's weights."""
    layer = nn.TransformerEncoderLayer(
        config.embed_dim, config.num_heads, config.mlp_dim, dropout=0.0, activation="gelu",
        layer_norm_eps=config.norm_eps, batch_first=True, norm_first=True, dtype=torch.float64,
    )  # fmt: skip
    theirs = {"attn.qkv.": "self_attn.in_proj_", "attn.proj.": "self_attn.out_proj.", "mlp.fc1.": "linear1.",
              "mlp.fc2.": "linear2."}  # fmt: skip
    renamed = {}
    for name, tensor in weights.items():
        for ours, their in theirs.items():
            name = name.replace(ours, their)
        renamed[name] = tensor
    layer.load_state_dict(renamed)
    return layer.eval().requires_grad_(False)


def test_all_capacities_full_and_a_hard_gate_is_the_plain_tied_model() -> None:
    routed = random_model(make_config(capacity=[16, 16, 16], gate="hard"), dtype=torch.float64)
    plain = MoRViT(make_config(routing="none")).double()
    plain.load_state_dict({k: v for k, v in routed.state_dict().items() if not k.startswith("routers")})
    images = embedded(routed.config)
    assert (routed(images).logits - plain(images).logits).abs().max() <= EXACT
    assert routed(images).depth.unique().tolist() == [3]


def test_each_step_keeps_its_capacity_of_patches_and_cls_is_not_counted() -> None:
    config = make_config(capacity=[9, 4, 1])
    outcome = random_model(config)(embedded(config).float())
    for trace, depth in zip(outcome.traces, outcome.depth, strict=True):
        assert [len(d.kept) for d in trace.decisions] == [9, 4, 1]
        assert [len(d.candidates) for d in trace.decisions] == [16, 9, 4]
        assert [int((depth >= step).sum()) for step in (1, 2, 3)] == [9, 4, 1]
        for earlier, later in pairwise(trace.decisions):
            assert torch.equal(earlier.kept, later.candidates)  # who left never returns


def test_which_tokens_of_one_image_ran_each_step() -> None:
    config = make_config(capacity=[9, 4, 1])
    outcome = random_model(config)(embedded(config, 1).float())
    assert outcome.runs.shape == (3, 1, 16)
    assert torch.equal(outcome.runs.sum(dim=0), outcome.depth)


def test_cls_runs_every_step() -> None:
    config = make_config(capacity=[1, 1, 1])
    trace = random_model(config)(embedded(config, 1).float()).traces[0]
    states = [trace.states[name][0] for name in ("first", "step1", "step2", "step3")]
    assert all(not torch.equal(a, b) for a, b in pairwise(states))


def test_flat_each_step_takes_its_capacity_of_all_tokens() -> None:
    config = make_config(routing="expert_choice_flat", capacity=[9, 4, 17])
    outcome = random_model(config)(embedded(config).float())
    for trace, depth in zip(outcome.traces, outcome.depth, strict=True):
        assert trace.counts == (9, 4, 17)
        assert all(decision.candidates.tolist() == list(range(17)) for decision in trace.decisions)
        ran = [sum(token in d.kept.tolist() for d in trace.decisions) for token in range(17)]
        assert depth.tolist() == ran[1:]
        assert trace.decisions[2].margin == float("inf")
    assert outcome.runs.sum(dim=2).tolist() == [[9, 9], [4, 4], [17, 17]]


def test_flat_cls_and_patches_sit_a_step_out_and_come_back() -> None:
    model = wandering_model()
    for trace in model(embedded(model.config, 4).float()).traces:
        kept = [set(decision.kept.tolist()) for decision in trace.decisions]
        assert tuple(0 in tokens for tokens in kept) == CLS_RUNS
        assert len((kept[0] & kept[2]) - kept[1]) > 1, "CLS is not the only one to come back"
        states = [trace.states[name] for name in ("first", "step1", "step2", "step3")]
        for tokens, (before, after) in zip(kept, pairwise(states), strict=True):
            stood_still = [token for token in range(17) if torch.equal(before[token], after[token])]
            assert stood_still == [token for token in range(17) if token not in tokens]


def test_flat_ties_go_to_the_lower_token_and_cls_is_the_lowest() -> None:
    config = make_config(routing="expert_choice_flat", capacity=[3, 1, 16])
    model = random_model(config)
    zero(model.routers)
    trace = model(embedded(config, 1).float()).traces[0]
    assert [d.kept.tolist() for d in trace.decisions] == [[0, 1, 2], [0], list(range(16))]
    assert trace.margin == 0


def test_flat_with_everyone_at_each_step_is_the_plain_tied_model() -> None:
    routed = random_model(make_config(routing="expert_choice_flat", capacity=[17] * 3), dtype=torch.float64)
    plain = MoRViT(make_config(routing="none")).double()
    plain.load_state_dict({k: v for k, v in routed.state_dict().items() if not k.startswith("routers")})
    images = embedded(routed.config)
    assert (routed(images).logits - plain(images).logits).abs().max() <= EXACT


@pytest.mark.parametrize("scope", ["active", "all"])
def test_a_leaver_keeps_the_state_it_had_before_the_router(scope: str) -> None:
    config = make_config(attention_scope=scope, cycle_depth=2)
    outcome = random_model(config)(embedded(config).float())
    for trace, depth in zip(outcome.traces, outcome.depth, strict=True):
        stages = [trace.states[name] for name in ("first", "step1", "step2", "step3")]
        for token, steps in enumerate(depth.tolist(), start=1):
            for state in stages[steps + 1 :]:
                assert torch.equal(state[token], stages[steps][token])


def test_ties_go_to_the_lower_token() -> None:
    config = make_config(capacity=[10, 4, 2])
    model = random_model(config)
    zero(model.routers)
    outcome = model(embedded(config, 1).float())
    assert [d.kept.tolist() for d in outcome.traces[0].decisions] == [list(range(k)) for k in (10, 4, 2)]
    assert outcome.traces[0].margin == 0


def test_a_first_capacity_of_all_means_step_one_is_not_routed() -> None:
    config = make_config(capacity=[16, 6, 3])
    decision = random_model(config)(embedded(config, 1).float()).traces[0].decisions[0]
    assert decision.kept.tolist() == list(range(16))
    assert decision.margin == float("inf")


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per step"])
def test_a_shared_router_is_one_router(shared: bool) -> None:
    model = random_model(make_config(router={"shared": shared}))
    assert len(model.routers) == (1 if shared else 3)
    assert (model.router(0) is model.router(2)) == shared


def test_token_choice_takes_the_lowest_of_equal_depths() -> None:
    config = make_config(routing="token_choice")
    model = random_model(config)
    zero(model.routers)
    outcome = model(embedded(config, 1).float())
    assert outcome.depth.unique().tolist() == [1]
    model.routers[0][0].bias[[2, 4]] = 1.0
    assert model(embedded(config, 1).float()).depth.unique().tolist() == [3]


@pytest.mark.parametrize("layer", [1, 2, 5])
def test_token_choice_depths_count_layers_and_cls_sees_them_all(layer: int) -> None:
    config = make_config(routing="token_choice", sharing="middle_cycle")
    model = random_model(config)
    zero(model.routers)
    model.routers[0][0].bias[layer - 1] = 1.0
    outcome = model(embedded(config, 1).float())
    states = outcome.traces[0].states
    assert outcome.depth.unique().tolist() == [layer]
    for number in range(1, 6):
        before, after = states["embed" if number == 1 else f"step{number - 1}"], states[f"step{number}"]
        assert torch.equal(before[1:], after[1:]) == (number > layer)
        assert not torch.equal(before[0], after[0])


def test_token_choice_records_who_could_run_a_layer_and_who_did() -> None:
    config = make_config(routing="token_choice")
    outcome = random_model(config).double()(normalised(config, random_pixels(config, 1)))
    depth, (trace,) = outcome.depth[0], outcome.traces
    for layer, decision in enumerate(trace.decisions, start=1):
        assert decision.candidates.tolist() == torch.nonzero(depth >= layer - 1).ravel().tolist()
        assert decision.kept.tolist() == torch.nonzero(depth >= layer).ravel().tolist()


def test_images_of_a_batch_do_not_see_each_other() -> None:
    config = make_config()
    model = random_model(config, dtype=torch.float64)
    images = embedded(config, 4)
    together = model(images)
    assert len(together.depth.unique(dim=0)) > 1, "the images should route differently"
    for image, logits in zip(images, together.logits, strict=True):
        assert torch.equal(model(image[None]).logits[0], logits)


def test_runs_in_float64() -> None:
    config = make_config()
    single, double = random_model(config), random_model(config, dtype=torch.float64)
    images = embedded(config)
    assert double(images).logits.dtype == torch.float64
    assert (double(images).logits - single(images.float()).logits).abs().max() < 1e-3  # float32 round-off


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("morvit_b16", 22_784_498),
        ("vit_b16", 86_567_656),
        ("morvit_b16_mlp_head", 27.45e6),
        ("morvit_b16_r5", 29.87e6),
        ("edge_recvit_b16", 26.33e6),
    ],
)
def test_presets_have_the_parameters_of_the_design(name: str, parameters: float) -> None:
    with torch.device("meta"):
        counted = sum(p.numel() for p in MoRViT(preset(name)).parameters())
    assert counted == parameters if isinstance(parameters, int) else round(counted, -4) == parameters


def test_the_tiny_preset_is_below_a_million_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in MoRViT(preset("morvit_tiny_digits")).parameters()) < 1_000_000
    assert set(PRESETS) >= {"morvit_b16", "vit_b16", "edge_recvit_b16"}
