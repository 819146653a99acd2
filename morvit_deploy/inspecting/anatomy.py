"""What a MoR-ViT is made of: parameters by part, how often each block is applied, MACs by stage. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import applications, dense_macs, schedule_macs
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.routings.counting import block_macs

_PARTS = {  # a tensor's first name -> the part it belongs to
    "patch_embed": "stem",
    "cls_token": "stem",
    "pos_embed": "stem",
    "register_tokens": "stem",
    "first": "first",
    "cycle": "cycle",
    "last": "last",
    "routers": "routers",
    "norm": "norm and head",
    "head": "norm and head",
}


@dataclass(frozen=True)
class Tie:
    """A unique block: how many layers use its weights."""

    block: str
    applications: int
    parameters: int


@dataclass(frozen=True)
class Stage:
    """One stage of the static graph of the checkpoint's own schedule; `tokens` includes CLS."""

    name: str
    tokens: int
    macs: int


@dataclass(frozen=True)
class AtDepth:
    """The static graph of a model with depths chosen up front, if every patch token had one depth."""

    depth: int
    macs: int


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image, four ways."""

    plain: int  # a ViT of as many layers, without routers
    masked: int  # every token in every layer, exits only masked: eager code
    gathered: int  # only active tokens in each step, everything in the ends
    static: int  # after the exact rewrites: what an exported graph computes


def parameters_by_part(sizes: Mapping[str, int]) -> dict[str, int]:
    """Tensor names and their number of values, to values in each part, in the order that data flows."""
    out = dict.fromkeys(_PARTS.values(), 0)
    for name, size in sizes.items():
        out[_PARTS[name.split(".")[0]]] += size
    return {part: size for part, size in out.items() if size}


def ties_of(config: Config, sizes: Mapping[str, int]) -> tuple[Tie, ...]:
    """Each unique block with its applications."""
    return tuple(
        Tie(block, times, sum(size for name, size in sizes.items() if name.startswith(f"{block}.")))
        for block, times in applications(config).items()
    )


def untied_parameters(parts: Mapping[str, int], ties: tuple[Tie, ...]) -> int:
    """Values that a plain ViT of the same shape holds: a block for each layer, no routers."""
    shared = parts.get("stem", 0) + parts.get("norm and head", 0)
    return shared + sum(tie.applications * tie.parameters for tie in ties)


def mac_counts(config: Config) -> Macs:
    """One image under the checkpoint's own schedule; without one, every token in every layer."""
    tokens, capacity = config.num_tokens, own_plan(config).buckets[0].capacity
    everything = config.num_layers * block_macs(config, tokens, tokens, tokens)
    return Macs(
        plain=_ends(config) + everything,
        masked=dense_macs(config),
        gathered=schedule_macs(config, capacity, cls_only=False),
        static=schedule_macs(config, capacity),
    )


def stages_of(config: Config) -> tuple[Stage, ...]:
    """The stages of the graph of a schedule after the rewrites; their MACs add up to `mac_counts(config).static`."""
    assert config.capacity is not None
    tokens, capacity = config.num_patches + 1, config.capacity
    middle = config.sharing == "middle_cycle"
    upto = [schedule_macs(config, capacity[:r], cls_only=False) for r in range(len(capacity))]
    upto.append(
        schedule_macs(config, capacity, cls_only=not middle)
    )  # without `last`, the final step is CLS alone
    running = [kept if config.routes_cls else kept + 1 for kept in capacity]
    steps = [Stage(f"step {r}", count, upto[r] - upto[r - 1]) for r, count in enumerate(running, start=1)]
    stages = [Stage("patch projection and head", tokens, _ends(config)), *steps]
    if middle:
        stages.insert(1, Stage("first", tokens, block_macs(config, tokens, tokens, tokens)))
        stages.append(Stage("last, for CLS alone", tokens, block_macs(config, 1, tokens, tokens)))
    return tuple(stages)


def depths_of(config: Config) -> tuple[AtDepth, ...]:
    """Depths chosen up front, with every patch token at 1 … L; deeper layers hold one pad, as buckets do."""
    patches, layers = config.num_patches, config.num_layers
    return tuple(
        AtDepth(depth, schedule_macs(config, (patches,) * depth + (1,) * (layers - depth)))
        for depth in range(1, layers + 1)
    )


def _ends(config: Config) -> int:
    """Patch projection and head: all that is left when no layer and no router is counted."""
    tokens = config.num_tokens
    bare = config.model_copy(update={"routing": "none", "router": None, "capacity": None})
    return dense_macs(bare) - config.num_layers * block_macs(config, tokens, tokens, tokens)
