"""Every routing × gate × scope × sharing combination, as changes to the tiny configuration."""

from __future__ import annotations

from itertools import product
from typing import Any

SHARINGS = ("none", "cycle", "middle_cycle")
SCOPES = ("active", "all")
GATES = ("block", "delta", "hard")

EXPERT: list[dict[str, Any]] = [
    {"routing": "expert_choice", "gate": gate, "attention_scope": scope, "sharing": sharing}
    for gate, scope, sharing in product(GATES, SCOPES, SHARINGS)
]
TOKEN: list[dict[str, Any]] = [
    {"routing": "token_choice", "attention_scope": scope, "sharing": sharing}
    for scope, sharing in product(SCOPES, SHARINGS)
]
DENSE: list[dict[str, Any]] = [{"routing": "none", "sharing": sharing} for sharing in SHARINGS]
FLAT: list[dict[str, Any]] = [
    {"routing": "expert_choice_flat", **changes}
    for changes in (
        {},  # each step chooses fewer or more than the last
        {"capacity": [17, 5, 17]},  # everyone comes back
        {"capacity": [17, 17, 17]},  # nobody is ever asked
        {"capacity": [1, 16, 1], "cycle_depth": 2},
        {"router": {"hidden": [12, 10], "shared": True, "activation": "tanh"}, "cycle_depth": 2},
    )
]
REDUCING: list[dict[str, Any]] = [
    {"routing": "attentive"},
    {"routing": "attentive", "reduction": {"layers": [0, 1, 3], "fuse": True}, "capacity": [8, 4, 2]},
    {"routing": "attentive", "reduction": {"layers": [0, 1, 3], "fuse": True}, "capacity": [16, 16, 15]},
    {"routing": "predicted"},
    {
        "routing": "predicted",
        "reduction": {"layers": [0, 2, 4]},
        "capacity": [16, 5, 1],
    },  # a step that keeps all
    {"routing": "merged"},
    {"routing": "merged", "reduction": {"layers": [0, 2], "proportional": True}, "capacity": [8, 4]},
]
EVERY = [*EXPERT, *FLAT, *TOKEN, *DENSE, *REDUCING]
MASKABLE = [
    changes for changes in EVERY if changes["routing"] != "merged"
]  # no mask computes a mean of tokens
OPTIONS: list[dict[str, Any]] = [
    {"sharing": "middle_cycle", "cycle_depth": 2, "attention_scope": "all"},
    {"sharing": "cycle", "cycle_depth": 2, "attention_scope": "all", "gate": "delta"},
    {"sharing": "cycle", "cycle_depth": 2},
    {"router": {"activation": "tanh", "alpha": 0.7}},
    {"router": {"alpha": -1.5, "shared": True}},
    {"router": {"hidden": [12]}},
    {"router": {"hidden": [12, 10, 8], "bias": False}},
    {"routing": "token_choice", "router": {"hidden": [12, 10], "bias": False}, "cycle_depth": 2},
    {"head_hidden": [14]},
    {"head_hidden": [14, 9], "num_classes": 3, "labels": None},
    {"activation": "gelu_tanh"},
    {"activation": "relu", "qkv_bias": False},
    {"norm_eps": 0.1, "num_heads": 4},
    {"capacity": [16, 16, 1]},
    {"capacity": [1, 1, 1], "attention_scope": "all"},
]

OWNING: list[dict[str, Any]] = [  # checkpoints with thresholds of their own
    {"thresholds": [0.0, 0.0, 0.1], "capacity": [8, 5, 2]},
    {"thresholds": [0.0, None, -0.2], "capacity": [8, 8, 4], "gate": "delta", "router": {"shared": True}},
    {"thresholds": [None, 0.1, None], "capacity": [16, 7, 7], "gate": "hard", "sharing": "cycle",
     "attention_scope": "all"},
    {"thresholds": [-0.3, 0.0, 0.2], "capacity": [9, 6, 3], "gate": "hard", "sharing": "cycle", "cycle_depth": 2},
]  # fmt: skip  # one checkpoint per entry


def named(changes: dict[str, Any]) -> str:
    """A readable test id."""
    words = {"routing", "sharing", "gate", "attention_scope"}
    return "-".join(str(value) if key in words else f"{key}={value}" for key, value in changes.items())
