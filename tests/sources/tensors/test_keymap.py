"""Every source key is used, dropped by a named rule, refused with a reason, or unknown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from morvit_deploy.sources.tensors.keymap import (
    COPIED,
    LAYER_SCALE,
    QKV,
    assign,
    build,
    copy,
    drop,
    likely,
    part,
    refuse,
    scaled,
)

RULES = (
    copy(r"block\.(?P<i>\d+)\.w", r"layers.\g<i>.w"),
    copy(r"old\.(?P<i>\d+)\.w", r"layers.\g<i>.w"),
    *(
        part(rf"{name}\.(?P<kind>weight|bias)", name[0], r"qkv.\g<kind>")
        for name in ("query", "key", "value")
    ),
    part(r"gamma", "gamma", "proj.weight", "proj.bias"),
    copy(r"proj\.(?P<kind>weight|bias)", r"proj.\g<kind>"),
    drop(r"mask", "of training alone"),
    refuse(r"dist.*", "two heads"),
)


def test_where_keys_go() -> None:
    found = assign(["block.3.w", "query.bias", "mask", "dist_token", "blocks.3.w", "block.3.w2"], RULES)
    assert found.parts == {"layers.3.w": {"whole": "block.3.w"}, "qkv.bias": {"q": "query.bias"}}
    assert found.dropped == {"mask": "of training alone"}
    assert found.refused == {"dist_token": "two heads"}
    assert found.unknown == ["blocks.3.w", "block.3.w2"], "a pattern is the whole key"
    assert found.known == 4 and found.twice == []


def test_the_first_rule_wins() -> None:
    found = assign(["mask"], (drop("mask", "one"), refuse("mask", "two")))
    assert found.dropped == {"mask": "one"} and not found.refused


def test_two_sources_for_one_place() -> None:
    assert assign(["block.0.w", "old.0.w"], RULES).twice == ["old.0.w and block.0.w"]


def test_one_source_for_two_targets_is_one_known_key() -> None:
    found = assign(["gamma", "proj.weight", "proj.bias"], RULES)
    assert found.known == 3
    assert found.parts["proj.bias"] == {"gamma": "gamma", "whole": "proj.bias"}


def tensors(*names: str) -> dict[str, Tensor]:
    shape = {"gamma": (2,), "proj.bias": (2,)}
    return {name: torch.full(shape.get(name, (2, 2)), float(i)) for i, name in enumerate(names)}


def test_built_targets_and_their_rows() -> None:
    held = tensors("query.weight", "key.weight", "value.weight", "block.0.w", "mask")
    built, rows, problems = build(assign(held, RULES), held, (COPIED, QKV))
    assert not problems
    assert built["qkv.weight"].tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2], [2, 2]], (
        "q, k, v downwards"
    )
    assert torch.equal(built["layers.0.w"], held["block.0.w"])
    assert {row.source for row in rows} == set(held), "every source key has a row"
    assert next(row for row in rows if row.source == "mask").how == "dropped: of training alone"
    assert next(row for row in rows if row.source == "mask").target is None


def test_q_k_v_in_any_order_of_the_file() -> None:
    held = tensors("value.weight", "query.weight", "key.weight")
    built, *_ = build(assign(held, RULES), held, (QKV,))
    assert built["qkv.weight"][:, 0].tolist() == [1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["query.weight", "value.weight"],
            "incomplete qkv.weight (q, k, v concatenated) from query.weight: missing k",
        ),
        (["gamma", "proj.weight"], "incomplete proj.bias (LayerScale folded in) from gamma: missing whole"),
    ],
    ids=["no key", "no bias"],
)
def test_half_a_target_is_a_problem(names: list[str], told: str) -> None:
    held = tensors(*names)
    _, rows, problems = build(assign(held, RULES), held, (QKV, LAYER_SCALE))
    assert problems == [told]
    assert not any(told.split()[2] == row.target for row in rows)


def test_parts_that_do_not_fit_are_named() -> None:
    held = tensors("query.weight", "key.weight", "gamma", "proj.weight", "proj.bias")
    held |= {"value.weight": torch.ones(2, 3), "gamma": torch.ones(3)}
    _, rows, problems = build(assign(held, RULES), held, (QKV, LAYER_SCALE))
    assert len(problems) == 3 and not rows
    told = "shapes do not match: query.weight [2, 2], key.weight [2, 2], value.weight [2, 3]"
    assert problems[0] == f"qkv.weight (q, k, v concatenated): {told}"


def test_a_surplus_slot_is_named() -> None:
    held = tensors("proj.weight", "gamma", "proj.bias")
    *_, problems = build(assign(held, RULES), held, (COPIED,))
    assert problems[0].endswith("unexpected gamma")


def test_layer_scale_is_exact_in_real_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias, gamma, x = (torch.randn(s, generator=generator) for s in ((5, 3), (5,), (5,), (3,)))
    wanted = gamma.double() * (weight.double() @ x.double() + bias.double())
    folded = {name: scaled({"whole": t, "gamma": gamma}) for name, t in (("w", weight), ("b", bias))}
    found = folded["w"].double() @ x.double() + folded["b"].double()
    assert (found - wanted).abs().max() <= 1e-6, "float32 weights: rounded once"
    assert folded["w"].dtype == torch.float32


def test_a_near_name_is_told() -> None:
    assert likely("blocks.0.norm1.wieght", ["blocks.0.norm1.weight"]) == " (near blocks.0.norm1.weight)"
    assert likely("something.else", ["blocks.0.norm1.weight"]) == ""
