"""The structure of a MoR-ViT: parameters by part, applications of each block, MACs by stage. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import applications, dense_macs, schedule_macs
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.routings.counting import GraphShape, block_macs, cls_macs
from morvit_deploy.model.routings.schedules import reads_cls_alone, routed_by

_PARTS = {  # first component of a tensor's name -> part
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
    """A unique block, and the number of layers that use its weights."""

    block: str
    applications: int
    parameters: int


@dataclass(frozen=True)
class Stage:
    """A stage of the static graph of the checkpoint's own schedule; `tokens` includes CLS."""

    name: str
    tokens: int
    macs: int


@dataclass(frozen=True)
class AtDepth:
    """The cost of a static graph with depths chosen up front if every patch token has the same depth."""

    depth: int
    macs: int


@dataclass(frozen=True)
class Macs:
    """MACs of one image, in four implementations."""

    plain: int  # a plain ViT with the same number of layers
    masked: int  # every token in every layer, tokens that leave are masked, as in eager code
    gathered: int  # only active tokens in each step, all tokens in the first and last blocks
    static: int  # the exported graph, after the exact rewrites


def parameters_by_part(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sum tensor sizes by part, in the order of computation."""
    out = dict.fromkeys(_PARTS.values(), 0)
    for name, size in sizes.items():
        out[_PARTS[name.split(".")[0]]] += size
    return {part: size for part, size in out.items() if size}


def ties_of(config: Config, sizes: Mapping[str, int]) -> tuple[Tie, ...]:
    """Return each unique block with its number of applications."""
    return tuple(
        Tie(block, times, sum(size for name, size in sizes.items() if name.startswith(f"{block}.")))
        for block, times in applications(config).items()
    )


def untied_parameters(parts: Mapping[str, int], ties: tuple[Tie, ...]) -> int:
    """Return the parameters of a plain ViT of the same shape: a block for each layer, no routers."""
    shared = parts.get("stem", 0) + parts.get("norm and head", 0)
    return shared + sum(tie.applications * tie.parameters for tie in ties)


def mac_counts(config: Config) -> Macs:
    """Return the MACs of one image with the checkpoint's own schedule, or with every token in every layer."""
    tokens, (bucket,) = config.num_tokens, own_plan(config).buckets
    routed = None if config.thresholds is None else routed_by(config, config.thresholds)
    everything = config.num_layers * block_macs(config, tokens, tokens, tokens)
    return Macs(
        plain=_ends(config) + everything,
        masked=dense_macs(config),
        gathered=schedule_macs(config, bucket.capacity, cls_only=False, routed=routed),
        static=bucket.macs,
    )


def stages_of(config: Config) -> tuple[Stage, ...]:
    """Return the stages of the static graph of a schedule; their MACs add up to `mac_counts(config).static`."""
    assert config.schedule is not None
    if config.record.reduces:
        return _stages_by_layers(config)
    tokens, capacity = config.num_patches + 1, config.schedule
    middle = config.sharing == "middle_cycle"
    upto = [schedule_macs(config, capacity[:r], cls_only=False) for r in range(len(capacity))]
    # without `last`, the final step is CLS only
    upto.append(schedule_macs(config, capacity, cls_only=not middle))
    running = [kept if config.record.routes_cls else kept + 1 for kept in capacity]
    steps = [Stage(f"step {r}", count, upto[r] - upto[r - 1]) for r, count in enumerate(running, start=1)]
    stages = [Stage("patch projection and head", tokens, _ends(config)), *steps]
    if middle:
        stages.insert(1, Stage("first", tokens, block_macs(config, tokens, tokens, tokens)))
        if reads_cls_alone(config):
            last = Stage("last, for CLS only", tokens, cls_macs(config, GraphShape(capacity), tokens, tokens))
        else:
            last = Stage("last", tokens, block_macs(config, tokens, tokens, tokens))
        stages.append(last)
    return tuple(stages)


def _stages_by_layers(config: Config) -> tuple[Stage, ...]:
    """The stages of a shortened ViT: the layers between two of its steps hold as many tokens."""
    assert config.reduction is not None and config.capacity is not None
    added, before, last = config.record.added_tokens(config), config.record.predicts, config.num_layers - 1
    bounds = [
        at if before else at + 1 for at in config.reduction.layers
    ]  # layers from here on hold fewer tokens
    stages = [Stage("patch projection and head", config.num_tokens, _ends(config))]
    held, start = config.num_patches, 0
    for end, kept in zip([*bounds, last], [*config.capacity, None], strict=True):
        if end > start:
            macs = _upto_layer(config, end) - _upto_layer(config, start)
            named = f"layer {start}" if end - start == 1 else f"layers {start} to {end - 1}"
            stages.append(Stage(named, held + 1, macs))
        if kept is not None and kept < held:
            held = kept + added
        start = end
    rest = mac_counts(config).static - sum(stage.macs for stage in stages)
    return (*stages, Stage(f"layer {last}, for CLS only", held + 1, rest))


def _upto_layer(config: Config, layer: int) -> int:
    """MACs of the layers before a layer, each for all tokens that it holds."""
    assert config.reduction is not None and config.capacity is not None
    layers = tuple(at for at in config.reduction.layers if at < layer)
    short = {
        "cycle_depth": layer,
        "capacity": config.capacity[: len(layers)],
        "reduction": config.reduction.model_copy(update={"layers": layers}),
    }
    cut = config.model_copy(update=short)
    return cut.record.macs(cut, GraphShape(config.capacity[: len(layers)], cls_only=False))


def depths_of(config: Config) -> tuple[AtDepth, ...]:
    """Return the cost with all patch tokens at depth 1 … L; deeper layers hold one padding token, as buckets do."""
    patches, layers = config.num_patches, config.num_layers
    return tuple(
        AtDepth(depth, schedule_macs(config, (patches,) * depth + (1,) * (layers - depth)))
        for depth in range(1, layers + 1)
    )


def _ends(config: Config) -> int:
    """MACs of the patch projection and the head."""
    tokens = config.num_tokens
    bare = config.model_copy(update={"routing": "none", "router": None, "capacity": None, "thresholds": None})
    return dense_macs(bare) - config.num_layers * block_macs(config, tokens, tokens, tokens)
