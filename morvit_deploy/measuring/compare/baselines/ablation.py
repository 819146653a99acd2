"""The paper's Table 4: `morvit_b16` without dynamic recursion, or without sharing, with random weights. No torch."""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.compare.baselines.published import PRESET, UNROUTED, UNTIED
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.presets import PRESETS

if TYPE_CHECKING:
    import onnx  # noqa: TID251  # only its types

ABLATIONS = (UNROUTED, UNTIED)
SHARED = "cycle."  # begins the names of the weights that every step reads
_EVERY_TOKEN: dict[str, Any] = {"routing": "none", "router": None, "capacity": None, "gate": "hard"}


def ablated(name: str) -> Config:
    """The configuration to export; that of UNTIED is the preset's, whose graph `untie` changes."""
    fields = PRESETS[PRESET] | (_EVERY_TOKEN if name == UNROUTED else {})
    return parse_config(json.dumps(fields), source=f"ablation {name}")


def untie(model: onnx.ModelProto) -> int:
    """Give each step weights of its own, in place; returns how many parameters were added.

    They are copies of the shared ones: the logits stay the same, which proves the graph, and so does the time, which
    depends on where weights are and not on their values.
    """
    shared = {init.name: init for init in model.graph.initializer if init.name.startswith(SHARED)}
    met: dict[str, int] = {}
    added = 0
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in shared:
                continue
            step = met[name] = met.get(name, -1) + 1
            if step:
                copy = model.graph.initializer.add()
                copy.CopyFrom(shared[name])
                copy.name = node.input[place] = f"{name}.step{step}"
                added += prod(copy.dims)
    return added
