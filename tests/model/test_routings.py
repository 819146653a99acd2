"""Routings: what each record says, that nothing else asks by name, and what a new one needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny_models import EXACT, make_config, normalised, random_model, random_pixels
from torch import Tensor

import morvit_deploy
from morvit_deploy.exporters.api import export
from morvit_deploy.graph.dense import Dense
from morvit_deploy.graph.step import Carried
from morvit_deploy.graph.unroll import STATIC_ROUTINGS, unroll
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.reference import FORWARD, MoRViT
from morvit_deploy.model.routings import ROUTINGS
from morvit_deploy.model.routings.counting import GraphShape, block_macs, cls_macs
from morvit_deploy.model.routings.expert_choice import scores_read
from morvit_deploy.model.routings.none import NONE
from morvit_deploy.model.trace import Routing, Trace

PACKAGE = Path(morvit_deploy.__file__).parent
FOLDERS = (PACKAGE, PACKAGE.parent / "exporters", PACKAGE.parent / "calibration")
MAY_ASK = (PACKAGE / "model", PACKAGE / "graph")
MAY_WRITE = PACKAGE / "sources"  # converters write a name into config.json
NAMES = ROUTINGS.keys() - {"none", "predicted"}  # words of their own elsewhere

sources = [
    path
    for folder in FOLDERS
    for path in sorted(folder.rglob("*.py"))
    if not any(path.is_relative_to(allowed) for allowed in MAY_ASK)
]


def asked(tree: ast.AST) -> Iterator[ast.expr]:
    """Expressions that a file compares, looks up or matches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            yield from (node.left, *node.comparators)
        elif isinstance(node, ast.Subscript):
            yield node.slice
        elif isinstance(node, ast.Match):
            yield node.subject
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            yield from node.args[:1]


@pytest.mark.parametrize("path", sources, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_nobody_asks_by_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    by_name = [
        node.lineno for node in asked(tree) if isinstance(node, ast.Attribute) and node.attr == "routing"
    ]
    assert not by_name, f"line {by_name[0]} asks which routing it is: give its record a property"
    assert not re.search(r"routing *(==|!=|\bin\b *[({\[])", text)
    if not path.is_relative_to(MAY_WRITE):
        literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)} & NAMES
        assert not literals, f"names the routings {literals}"


def test_each_routing_has_a_record_a_reference_and_a_graph_class() -> None:
    assert ROUTINGS.keys() == FORWARD.keys() == STATIC_ROUTINGS.keys()
    assert all(name == record.name for name, record in ROUTINGS.items())


class Expected(NamedTuple):
    """Of the tiny configuration: 16 patches, 3 recursions between first and last."""

    modes: tuple[str, ...]
    own: tuple[str, tuple[int, ...]]  # the plan without calibration: its mode and capacity
    router_logits: list[int]  # of a token, from each router
    fitted: bool  # can buckets be fitted?
    routed: int = 16  # tokens that a capacity counts
    nested: bool = True
    routes_cls: bool = False
    depth_upfront: bool = False
    has_schedule: bool = True


EXPECTED = {
    "expert_choice": Expected(("topk", "threshold"), ("topk", (12, 6, 3)), [1, 1, 1], True),
    "expert_choice_flat": Expected(("topk",), ("topk", (9, 4, 13)), [1, 1, 1], False, 17, False, True),
    "token_choice": Expected(
        ("depth",), ("depth", (16,) * 5), [5], True, depth_upfront=True, has_schedule=False
    ),
    "none": Expected(("topk",), ("topk", (16,) * 3), [], False, has_schedule=False),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_record_says(name: str) -> None:
    config = make_config(routing=name)
    record, plan, routers = config.record, own_plan(config), random_model(config).all_routers()
    found = Expected(
        modes=record.modes,
        own=(plan.mode, plan.buckets[0].capacity),
        router_logits=[router.linears()[-1].out_features for router in routers],
        fitted=record.why_one_bucket is None,
        routed=config.routed_tokens,
        nested=config.record.nested,
        routes_cls=config.record.routes_cls,
        depth_upfront=record.depth_upfront,
        has_schedule=record.has_schedule,
    )
    assert found == EXPECTED[name]
    assert record.routes == bool(routers)
    assert config.num_steps == len(plan.buckets[0].capacity)
    assert record.has_schedule == (config.capacity is not None)
    assert all(getattr(config, field) == value for field, value in record.fixed.items())


@pytest.mark.parametrize("name", ["expert_choice", "expert_choice_flat"])
def test_the_description_names_the_schedule(name: str) -> None:
    config = make_config(routing=name)
    assert config.capacity is not None
    assert f": {', '.join(map(str, config.capacity))} of " in config.record.describe(config)


@pytest.mark.parametrize(
    ("step", "changes", "read"),
    [
        ({}, {"gate": "hard"}, False),
        ({}, {"gate": "delta"}, True),
        ({"by_threshold": True}, {"gate": "hard"}, True),
        ({"final": True}, {"gate": "delta"}, False),
        ({"final": True}, {"gate": "delta", "sharing": "middle_cycle"}, True),
        ({"final": True, "cls_only": False}, {"gate": "delta"}, True),
        ({"final": True, "by_threshold": True}, {}, True),
        ({"final": True, "by_threshold": True}, {"attention_scope": "all"}, False),
        ({"final": True, "by_threshold": True}, {"attention_scope": "all", "cycle_depth": 2}, True),
        ({"final": True, "by_threshold": True, "with_depth": True}, {"attention_scope": "all"}, True),
    ],
)
def test_which_scores_a_graph_keeps(step: dict[str, bool], changes: dict[str, Any], read: bool) -> None:
    config = make_config(**{"sharing": "cycle", "cycle_depth": 1, "attention_scope": "active", **changes})
    usual = {"final": False, "by_threshold": False, "with_depth": False, "cls_only": True}
    assert scores_read(config, **{**usual, **step}) is read


@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "none"])
def test_a_shared_router_is_one(name: str) -> None:
    assert len(random_model(make_config(routing=name, router={"shared": True})).all_routers()) == 1


# a new routing: its record, with its reference, and its graph class -----------------------------------------------


def first_half(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """CLS and the first half of the patches run every layer; the others are dropped."""
    kept = h[: 1 + model.config.num_patches // 2]
    for layer, (_, block) in enumerate(model.layers(), start=1):
        kept = trace.states[f"layer{layer}"] = block(kept)
    return kept, torch.zeros(len(h), dtype=torch.long)


def first_half_macs(config: Config, graph: GraphShape) -> int:
    tokens, layers = 1 + config.num_patches // 2, config.num_layers
    everyone = block_macs(config, tokens, tokens, tokens)
    last = cls_macs(config, graph, tokens, tokens) if graph.cls_only else everyone
    return (layers - 1) * everyone + last


class FirstHalf(Dense):
    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        return {"h": self.layout.first(h, 1 + self.config.num_patches // 2)}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Config:
    """A configuration of a routing that the package does not have."""
    record = replace(NONE, name="first_half", macs=first_half_macs)
    monkeypatch.setitem(ROUTINGS, record.name, record)
    monkeypatch.setitem(FORWARD, record.name, first_half)
    monkeypatch.setitem(STATIC_ROUTINGS, record.name, FirstHalf)
    return make_config(routing=record.name, router=None, gate="hard", capacity=None)


def test_a_new_routing_runs(toy: Config) -> None:
    model, pixels = random_model(toy, dtype=torch.float64), random_pixels(toy, 2)
    plain = MoRViT(make_config(routing="none")).double()
    plain.load_state_dict(model.state_dict())
    wanted = model(normalised(toy, pixels)).logits
    graph = unroll(model, own_plan(toy).buckets[0])
    found = torch.cat([graph(torch.from_numpy(image[None]))["logits"] for image in pixels])
    assert (wanted - found).abs().max() <= EXACT
    assert (wanted - plain(normalised(toy, pixels)).logits).abs().max() > EXACT


def test_a_new_routing_is_exported_and_verified(toy: Config, tmp_path: Path) -> None:
    save_checkpoint(random_model(toy), tmp_path / "toy")
    exported = export(tmp_path / "toy", tmp_path / "bundle")
    assert exported.verification.passed and exported.manifest.config.routing == "first_half"
