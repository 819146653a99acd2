"""Multiply-accumulates of a schedule, counted from the configuration alone (no torch).

A MAC is one multiply and one add of a matrix product: linear layers, the patch projection, the two attention
products, routers and head. What papers on ViTs call FLOPs are these. The exporter counts the written graph
on its own and the two must agree.
"""

from __future__ import annotations

from itertools import pairwise

from morvit_deploy.model.config import Config


def block_macs(config: Config, queries: int, projected: int, keys: int) -> int:
    """One block: `queries` tokens updated, K and V computed for `projected` tokens, attention over `keys`.

    Attention over a single key is that key's value: there is nothing to multiply.
    """
    dim = config.embed_dim
    per_query = 2 * dim * dim + 2 * dim * config.mlp_dim  # Q, projection, fc1, fc2
    return queries * per_query + projected * 2 * dim * dim + (keys > 1) * 2 * queries * keys * dim


def dense_macs(config: Config) -> int:
    """Every token through every layer, all routers on all tokens: what masking in eager mode costs."""
    tokens = config.num_tokens
    routed = _router_macs(config) * tokens
    if config.capacity is not None:
        routed *= sum(routed_steps(config, config.capacity))
    return _ends(config) + config.num_layers * block_macs(config, tokens, tokens, tokens) + routed


def schedule_macs(
    config: Config,
    capacity: tuple[int, ...],
    cls_only: bool = True,
    frozen_keys: bool = True,
    routed: tuple[bool, ...] | None = None,
) -> int:
    """One image through the static graph of `capacity`, after the rewrites (DESIGN: exact rewrites 2–4).

    `capacity` has one number for each step, for token_choice for each layer. With `cls_only` false the last
    layer is computed for every token that the graph holds, as without rewrite 3; with `frozen_keys` false K and V of
    tokens that have left are computed at every step, as without rewrite 4. `routed` says at which steps the
    router is read, by default where someone leaves or the gate needs the score.
    """
    if config.routing == "token_choice":
        return _ends(config) + _depth_macs(config, capacity, cls_only)
    if config.routing == "none":
        capacity = (config.num_patches,) * config.num_recursions
    routed = routed_steps(config, capacity) if routed is None else routed
    return _ends(config) + _recursion_macs(config, capacity, cls_only, frozen_keys, routed)


def selection_macs(
    config: Config,
    capacity: tuple[int, ...],
    thresholds: tuple[float | None, ...] | None = None,
    with_depth: bool = False,
    cls_only: bool = True,
    sorts: bool = True,
) -> int:
    """What one image pays besides for taking its tokens by products with one-hot rows, where gathers pay nothing.

    A product counts in full, k · n for each number of k among n tokens: the noughts are multiplied too. Of
    token_choice these are the stem's, if it `sorts`: some bucket of the plan holds fewer tokens than all. Of the
    other routings they are the trunk's.
    """
    if config.routing == "none":
        return 0
    if config.routing == "token_choice":  # states and depths in the order of depth
        return sorts * config.num_patches**2 * (config.embed_dim + 1)
    if config.routing == "expert_choice_flat":
        return _flat_selection_macs(config, capacity, with_depth, cls_only)
    told = thresholds or (0.0,) * len(capacity)  # by top-k every step may choose
    leavers_read = config.sharing == "middle_cycle" or config.attention_scope == "all"
    total, held = 0, config.num_patches
    for step, (kept, threshold) in enumerate(zip(capacity, told, strict=True), start=1):
        if threshold is None or kept == held:
            continue
        total += (held if leavers_read else kept) * held * config.embed_dim
        final, by_threshold = step == len(capacity), thresholds is not None
        total += kept * held * scores_read(config, final, by_threshold, with_depth, cls_only)
        total += held * held * with_depth * (1 if thresholds is None else 2)  # numbers, and steps run so far
        held = kept
    moved = held < config.num_patches
    return total + config.num_patches**2 * (with_depth and moved)  # depths in the tokens' own order


def scores_read(config: Config, final: bool, by_threshold: bool, with_depth: bool, cls_only: bool) -> bool:
    """Does anything read the scores of the tokens that a step holds, beyond their order?

    The gate does, and under a threshold whoever must know the pads; a final step of CLS alone may do without.
    """
    alone = final and config.sharing != "middle_cycle" and cls_only
    if not alone:
        return by_threshold or config.gate != "hard"
    return by_threshold and (config.attention_scope == "active" or config.cycle_depth > 1 or with_depth)


def _flat_selection_macs(config: Config, capacity: tuple[int, ...], with_depth: bool, cls_only: bool) -> int:
    """All states and their numbers move at each step that asks; last finds CLS among them."""
    tokens = config.num_tokens
    asking = sum(routed_steps(config, capacity))
    moved = asking * tokens**2 * (config.embed_dim + 1 + with_depth)
    cls = tokens * config.embed_dim * (2 if cls_only else 1)  # its state, and the same normalised
    return moved + (cls if asking else 0) + tokens**2 * with_depth


def stem_macs(config: Config, lead: int = 0) -> int:
    """One image through what all buckets share: up to the router of step `lead` (from 0), or of the depths."""
    tokens = config.num_patches + 1
    total = _patch_macs(config) + tokens * _router_macs(config)
    if config.routing == "token_choice":
        return total
    blocks = lead * config.cycle_depth + (config.sharing == "middle_cycle")
    gates = lead * tokens * _router_macs(config) if config.gate != "hard" else 0
    return total + blocks * block_macs(config, tokens, tokens, tokens) + gates


def routed_steps(config: Config, capacity: tuple[int, ...]) -> tuple[bool, ...]:
    """Is the router's logit read at each step? Not where nobody leaves and a hard gate has no score."""
    everyone = (config.routed_tokens,) * len(capacity)
    before = (config.routed_tokens, *capacity)[: len(capacity)] if config.nested else everyone
    return tuple(config.gate != "hard" or kept < held for kept, held in zip(capacity, before, strict=True))


def _ends(config: Config) -> int:
    """Patch projection and head."""
    widths = [config.embed_dim, *config.head_hidden, config.num_classes]
    head = sum(a * b for a, b in pairwise(widths))
    return _patch_macs(config) + head


def _patch_macs(config: Config) -> int:
    return config.num_patches * config.in_channels * config.patch_size**2 * config.embed_dim


def _router_macs(config: Config) -> int:
    """One router on one token."""
    if config.router is None:
        return 0
    out = config.num_layers if config.routing == "token_choice" else 1
    widths = [config.embed_dim, *config.router.hidden, out]
    return sum(a * b for a, b in pairwise(widths))


def _recursion_macs(
    config: Config, capacity: tuple[int, ...], cls_only: bool, frozen_keys: bool, routed: tuple[bool, ...]
) -> int:
    """first, the routed steps and last; `held` counts the tokens before each step's router."""
    tokens = held = config.num_tokens
    middle = config.sharing == "middle_cycle"
    everywhere = config.attention_scope == "all"
    total = block_macs(config, tokens, tokens, tokens) if middle else 0
    for step, kept in enumerate(capacity):
        running = (
            kept + tokens - config.routed_tokens
        )  # CLS, where it is not routed, and registers always run
        total += held * _router_macs(config) if routed[step] else 0
        # those who left now: K and V computed once, then carried
        fresh = ((held if frozen_keys else tokens) - running) if everywhere else 0
        keys = tokens if everywhere else running
        for i in range(config.cycle_depth):
            final = not middle and step == len(capacity) - 1 and i == config.cycle_depth - 1
            queries = 1 if final and cls_only else running
            total += block_macs(config, queries, running + fresh, keys)
        held = running if config.nested else tokens
    if middle:
        total += block_macs(config, 1 if cls_only else tokens, tokens, tokens)
    return total


def _depth_macs(config: Config, capacity: tuple[int, ...], cls_only: bool) -> int:
    """Layer s runs its capacity of tokens; each block keys a token that has left once."""
    tokens = config.num_patches + 1
    everywhere = config.attention_scope == "all"
    names = layer_names(config)
    total = tokens * _router_macs(config)
    keyed: dict[str, int] = {}  # block -> frozen tokens it holds keys of
    for layer, (name, kept) in enumerate(zip(names, capacity, strict=True), start=1):
        running = kept + 1
        frozen = tokens - running if everywhere else 0
        fresh = frozen - keyed.get(name, 0)
        keyed[name] = frozen
        queries = 1 if layer == len(names) and cls_only else running
        total += block_macs(config, queries, running + fresh, running + frozen)
    return total


def last_step_is_cls_alone(config: Config) -> bool:
    """Is nothing but CLS read after the last step, with every token a key of it, whoever runs the step?"""
    alone = config.sharing != "middle_cycle" and config.cycle_depth == 1
    return alone and config.attention_scope == "all"


def last_step_decides(config: Config) -> bool:
    """Is the last step's router read at all? Not with a hard gate where it does not matter who runs the step."""
    return config.gate != "hard" or not last_step_is_cls_alone(config)


def layer_names(config: Config) -> list[str]:
    """The checkpoint's block name of each layer, in order of application."""
    cycle = [f"cycle.{i}" for i in range(config.cycle_depth)] * config.num_recursions
    return ["first", *cycle, "last"] if config.sharing == "middle_cycle" else cycle


def applications(config: Config) -> dict[str, int]:
    """How often each unique block is applied."""
    names = layer_names(config)
    return {name: names.count(name) for name in dict.fromkeys(names)}
