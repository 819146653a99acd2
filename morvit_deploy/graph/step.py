"""What the static graphs of every routing are made of: weights, layout, selection, and how tokens meet a block."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from morvit_deploy.graph.maths.rewrites import KV, cls_only, frozen_keys
from morvit_deploy.graph.style.blocks import StaticBlock
from morvit_deploy.graph.style.ends import Classifier, StaticRouter
from morvit_deploy.graph.style.options import Options
from morvit_deploy.model import decisions
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import layer_names, routed_steps
from morvit_deploy.model.plan import Bucket, Plan, routed_by
from morvit_deploy.model.reference import MoRViT

Carried = dict[str, Tensor]  # what the stem hands to the trunk


@dataclass
class Walk:
    """Where the tokens are during the recursion."""

    h: Tensor  # (…, 1 + held, dim), CLS first: who is still held
    held: Tensor  # (…, held) their patch numbers, in the order of h
    runs: Tensor | None = None  # (…, held) who of them runs, the others are pads; None: all
    overflow: Tensor | None = None  # (…) did a capacity keep out a token that should run
    left: list[Tensor] = field(default_factory=list)  # states of those who left, a tensor for each step
    gone: list[Tensor] = field(default_factory=list)  # their patch numbers, for the depth output
    ran: Tensor | None = None  # (…, held) steps that each held token ran, where thresholds decide
    gone_ran: list[Tensor] = field(default_factory=list)  # the same of those who left
    keyed: dict[str, tuple[KV | None, int]] = field(
        default_factory=dict
    )  # block -> keys of the first n of left


class StaticGraph(nn.Module):
    """The weights of one bucket's graph, once, and one step of its tokens. Each routing adds its walk."""

    def __init__(self, model: MoRViT, bucket: Bucket, options: Options, plan: Plan | None) -> None:
        super().__init__()
        self.config, self.capacity, self.options = model.config, bucket.capacity, options
        self.thresholds = None if plan is None else plan.thresholds
        self.lead = 0 if plan is None else plan.lead
        self.names = layer_names(model.config)
        self.routed = (
            routed_steps(model.config, bucket.capacity)
            if self.thresholds is None
            else routed_by(model.config, self.thresholds)
        )
        ladder = [bucket.capacity] if plan is None else [b.capacity for b in plan.buckets]
        self.sorts = model.config.routing == "token_choice" and any(
            min(capacity) < model.config.num_patches for capacity in ladder
        )
        style = options.style
        self.layout = style.layout
        self.selection = style.select(model.config.num_tokens, model.patch_embed.proj.weight.dtype)
        split = _blocks_in_parts(model.config, self.names, options, self.sorts)
        self.blocks = nn.ModuleDict(
            {
                _key(name): style.block(block, fold=options.fold, joint=name not in split)
                for name, block in dict(model.layers()).items()
            }
        )
        pixels = options.input == "uint8"
        self.stem = style.stem(model, style.layout, pixels=pixels, fold=options.fold, single=style.single)
        self.routers = nn.ModuleList(StaticRouter(r, style.block.linear) for r in model.all_routers())
        self.classifier = Classifier(model, style.block, fold=options.fold)

    def _block(self, name: str) -> StaticBlock:
        return self.blocks[_key(name)]  # type: ignore[return-value]  # ModuleDict loses the type

    def _router(self, step: int) -> nn.Module:
        return self.routers[0 if len(self.routers) == 1 else step]

    def _walk(self, h: Tensor) -> Walk:
        return Walk(h, self.selection.places(h, self.config.num_patches))

    def _capacity(self, step: int, going: Tensor | None) -> int:
        """Patch tokens to hold at a step (from 0); `going` (…, held) says who of those held wants to run it."""
        return self.capacity[step]

    def _gate(self, h: Tensor, after: Tensor, z: Tensor | None, runs: Tensor | None = None) -> Tensor:
        """The gated update (…, n, dim) of h, given the cycle's output, the router logits (…, n, 1) and who runs."""
        if self.config.gate == "hard":
            return self._only_running(h, after, runs)
        assert self.config.router is not None and z is not None
        g = decisions.score(z, self.config.router.activation, self.config.router.alpha)
        if runs is not None and self.layout.count(g) > 1:
            g = self.selection.where(self._running(runs), g, 0.0)  # a pad's state stands still
        return h + g * (after if self.config.gate == "block" else after - h)

    def _only_running(self, before: Tensor, after: Tensor, runs: Tensor | None) -> Tensor:
        """`after` (…, n, dim), where a pad keeps the state it had."""
        if runs is None or self.layout.count(after) == 1:
            return after
        return torch.where(self._running(runs), after, before)

    def _running(self, runs: Tensor) -> Tensor:
        """Who of CLS and those held runs, for each channel of a state."""
        return self.layout.spread(self.selection.with_cls(runs))

    def _attend(self, name: str, x: Tensor, walk: Walk, alone: bool) -> Tensor:
        """Block `name` on x, or on its CLS alone; with scope `all`, those who left are keys too."""
        block = self._block(name)
        if self.config.attention_scope == "active":
            runs = None if walk.runs is None else self.selection.with_cls(walk.runs)
            mask = None if runs is None else self.selection.mask(runs, x.dtype)
            return cls_only(block, x, mask, layout=self.layout) if alone else block(x, mask)
        if not walk.left:
            return cls_only(block, x, layout=self.layout) if alone else block(x)
        carried, seen = walk.keyed.get(name, (None, 0)) if self.options.frozen_keys else (None, 0)
        fresh = self.layout.join(walk.left[seen:]) if walk.left[seen:] else None
        queries = 1 if alone else self.layout.count(x)
        x, carried = frozen_keys(block, x, fresh, carried, queries, self.layout)
        walk.keyed[name] = (carried, len(walk.left))
        return x


def _blocks_in_parts(config: Config, names: list[str], options: Options, sorts: bool) -> set[str]:
    """Blocks that are asked for fewer queries than keys."""
    parts = {names[-1]} if options.cls_only else set()
    if sorts or (config.routing == "expert_choice" and config.attention_scope == "all"):
        parts |= {name for name in names if name.startswith("cycle")}
    return parts


def _key(name: str) -> str:
    return name.replace(".", "_")  # a ModuleDict key has no dots
