"""The interpreter knows the operations that packages use, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from adaptive_plans import depth_plan, threshold_plan
from merged_models import MERGED, merged_config
from tiny_models import make_config, random_model

from morvit_deploy.exporters.coreml.contract.names import Weights
from morvit_deploy.exporters.coreml.contract.options import coreml_options
from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR
from morvit_deploy.exporters.coreml.mil.operations import OPERATIONS
from morvit_deploy.exporters.coreml.mlpackage.classify import classify
from morvit_deploy.exporters.coreml.mlpackage.compress import compress
from morvit_deploy.exporters.coreml.mlpackage.convert import Wanted, convert
from morvit_deploy.exporters.functions.tracing import functions
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.model.choices import Attention, Layout, Output, Select
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, own_plan

LARGE = {"embed_dim": 64, "mlp_dim": 128}  # enough for weights to be compressed at all


def ladder(config: Config) -> Plan:
    return threshold_plan(config, (0.0,) * config.num_steps, [(5, 4, 2)[: config.num_steps]])


def depths(config: Config) -> Plan:
    return depth_plan(config, [(16, 9, 4)])


def thresholds(config: Config) -> Plan:
    return threshold_plan(config, (0.0,) * config.num_steps, [])


@dataclass(frozen=True)
class Package:
    """A model, its plan and the options of its package."""

    changes: dict[str, Any] = field(default_factory=dict)
    plan: Callable[[Config], Plan] = own_plan
    layout: Layout = "bsd"
    select: Select = "topk"
    attention: Attention = "manual"
    ios: int = 18
    weights: Weights = "float"
    labels: bool = False
    output: Output = "logits"


HIDDEN_ROUTER = {"hidden": [12, 10], "shared": True, "activation": "tanh"}
PACKAGES = {  # few, whose functions hold between them what all packages do
    "thresholds, fused": Package({"gate": "delta"}, thresholds, attention="fused"),
    "channels first": Package({"router": {"activation": "tanh", "alpha": 0.7}}, layout="bc1s", ios=17),
    "flat": Package({"routing": "expert_choice_flat"}, ios=17),
    "flat, one-hot": Package(
        {"routing": "expert_choice_flat", "router": HIDDEN_ROUTER, "cycle_depth": 2}, select="onehot"
    ),
    "depths": Package(
        {"routing": "token_choice", "sharing": "none", "attention_scope": "active"}, depths, layout="bc1s"
    ),
    "ladder": Package({"sharing": "cycle"}, ladder),
    "ladder of one step": Package({"sharing": "none"}, ladder, layout="bc1s", select="onehot"),
    "merged": Package(MERGED[1]),
    "classifier": Package({"routing": "none", "activation": "relu"}, labels=True),
    "mean of patches": Package({"routing": "none", "pooling": "mean"}),
    "features, channels first": Package({"routing": "none"}, layout="bc1s", output="features"),
    "int8, iOS 17": Package(LARGE, weights="int8", ios=17),
    "int4": Package(LARGE, weights="int4"),
    "palette": Package(LARGE, weights="palette6"),
}


def operations(package: Package) -> Iterator[str]:
    """The types of the operations of every function, constants left out."""
    config = (merged_config if "reduction" in package.changes else make_config)(**package.changes)
    plan = package.plan(config)
    options = coreml_options(
        "uint8",
        package.layout,
        package.select,
        with_depth=config.routing != "none",
        attention=package.attention,
    )
    options = replace(options, output=package.output)
    graphs = unroll_plan(random_model(config), plan, options)
    wanted = Wanted(package.ios, "fp16", pixels=True, probabilities="softmax" if package.labels else None)
    for _, part, example in functions(graphs, plan):
        model = compress(convert(part, example, wanted), package.weights, next(iter(graphs.values())))
        if package.labels:
            model = classify(model, [f"class {number}" for number in range(config.num_classes)])
        (function,) = model.get_spec().mlProgram.functions.values()
        (block,) = function.block_specializations.values()
        yield from (op.type for op in block.operations if op.type != "const")


OLDER = {"logical_and"}  # of packages written until November 2026, which are still verified


@pytest.mark.slow
def test_known_operations_are_those_that_packages_use() -> None:
    used = {kind for package in PACKAGES.values() for kind in operations(package)}
    assert used | OLDER == {*OPERATIONS, *CONSTEXPR}
