"""Baselines that the unrolled graph is compared with: the model as it would be exported without the rewrites.

`masked` runs every token through every layer and masks those that have left, as training code does.
`gather_scatter` applies rewrite 1 only: it gathers the active tokens, runs them, and scatters them back.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.errors import TargetError
from morvit_deploy.graph.expert_choice import ExpertChoice
from morvit_deploy.graph.maths.dispatch import key_mask
from morvit_deploy.graph.maths.rewrites import take
from morvit_deploy.graph.merging_baseline import scattered
from morvit_deploy.graph.reducing_baselines import MaskedAttentive, MaskedPredicted
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import StaticMoRViT, unroll, unroll_plan
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.plan import Bucket, Plan
from morvit_deploy.model.reference import MoRViT


class Masked(ExpertChoice):
    """Run every token in every layer; tokens that do not run are masked as keys and keep their state."""

    begin = StaticRouting.begin  # the stem only embeds

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        h, middle, nested = carried["h"], self.config.sharing == "middle_cycle", self.config.record.nested
        h = self.graph.block("first")(h) if middle else h
        cls = 1 - self.config.record.routes_cls  # 1 if CLS is not a candidate
        everyone = torch.ones(*h.shape[:-2], h.shape[-2] - cls, dtype=torch.bool)
        active, depth = everyone, torch.zeros_like(everyone, dtype=torch.int32)
        for step, capacity in enumerate(self.capacity):
            active = active if nested else everyone
            z = self.graph.router(step)(h) if self.routed[step] else None  # (…, N+1, 1)
            if z is not None and capacity < self.config.routed_tokens:
                scores = z[..., cls:, 0]  # the k-th highest is the threshold
                scores = scores.masked_fill(~active, float("-inf")) if nested else scores
                best = scores >= scores.topk(capacity, dim=-1).values[..., -1:]
                active = active & best if nested else best
            depth = depth + active.to(torch.int32)
            h = self._masked_step(h, z, F.pad(active, (1, 0), value=True) if cls else active)
        if self.options.with_depth:
            out["depth"] = depth if cls else depth[..., 1:]
        return self.graph.block("last")(h) if middle else h

    def _masked_step(self, h: Tensor, z: Tensor | None, runs: Tensor) -> Tensor:
        mask = None if self.config.attention_scope == "all" else key_mask(runs, h.dtype)
        after = h
        for i in range(self.config.cycle_depth):
            after = torch.where(runs[..., None], self.graph.block(f"cycle.{i}")(after, mask), h)
        return torch.where(runs[..., None], self.gate(h, after, z), h)


class GatherScatter(ExpertChoice):
    """Gather the running tokens at each step and scatter them back after it; last runs on all tokens."""

    begin = StaticRouting.begin  # the stem only embeds

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        h, middle, nested = carried["h"], self.config.sharing == "middle_cycle", self.config.record.nested
        h = self.graph.block("first")(h) if middle else h
        cls = 1 - self.config.record.routes_cls  # 1 if CLS is not a candidate
        held = everyone = torch.arange(h.shape[-2]).expand(*h.shape[:-2], -1)  # token numbers, CLS is 0
        for step, capacity in enumerate(self.capacity):
            held = held if nested else everyone
            x = take(h, held) if nested else h
            z = self.graph.router(step)(x) if self.routed[step] else None
            if z is not None and capacity < held.shape[-1] - cls:
                best = z[..., cls:, 0].topk(capacity, dim=-1).indices
                order = F.pad(best + 1, (1, 0)) if cls else best
                held = held.gather(-1, order) if nested else order
                z, x = take(z, order), take(x, order)
            rows = held[..., None].expand(*held.shape, h.shape[-1])
            h = _put(h, rows, self.gate(x, self._cycle(h, x, rows), z))
        return self.graph.block("last")(h) if middle else h

    def _cycle(self, h: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """Apply the cycle to the running tokens x, which are rows `rows` of h."""
        for i in range(self.config.cycle_depth):
            block = self.graph.block(f"cycle.{i}")
            if self.config.attention_scope == "all":
                normed = block.norm1(_put(h, rows, x))
                x = block.finish(x, block.queries(block.norm1(x)), block.keys(normed))
            else:
                x = block(x)
        return x


def _put(h: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    """Return h (…, n, dim) with x written to `rows`; x itself if it holds all tokens, in their original order."""
    return x if x.shape[-2] == h.shape[-2] else h.scatter(-2, rows, x)


# the code of each form, for the routings that it exists for
BASELINES: dict[Variant, dict[str, type[StaticRouting]]] = {
    "masked": {
        "expert_choice": Masked,
        "expert_choice_flat": Masked,
        "attentive": MaskedAttentive,
        "predicted": MaskedPredicted,
    },
    "gather_scatter": {"expert_choice": GatherScatter, "expert_choice_flat": GatherScatter},
}


def build_graphs(variant: Variant, model: MoRViT, plan: Plan, options: Options) -> dict[str, StaticMoRViT]:
    """Return a static module for each bucket name: unrolled, or a baseline."""
    if variant == "unrolled":
        return unroll_plan(model, plan, options)
    (bucket,) = plan.buckets
    return {bucket.name: build_graph(variant, model, bucket, options)}


def build_graph(variant: Variant, model: MoRViT, bucket: Bucket, options: Options) -> StaticMoRViT:
    """Return the static module of a single bucket without a plan."""
    if variant == "unrolled":
        return unroll(model, bucket, options)
    if model.config.record.merges:
        return scattered(variant, model, bucket, options)
    if variant == "masked":
        plain = replace(options, cls_only=False, frozen_keys=False, fold=False)
        # without a schedule the bucket holds every token
        routing = None if model.config.schedule is None else BASELINES["masked"][model.config.routing]
        return StaticMoRViT(model, bucket, plain, routing=routing).eval()
    routing = BASELINES[variant].get(model.config.routing)
    if model.config.schedule is None or routing is None or options.with_depth:
        by = "" if model.config.thresholds is None else " by thresholds"
        raise TargetError(
            f"form {variant!r}: got routing {model.config.routing!r}{by}, depth output {options.with_depth}; "
            f"expected routing {' or '.join(map(repr, BASELINES[variant]))} by a capacity, and no depth output"
        )
    plain = replace(options, cls_only=False, frozen_keys=False)
    return StaticMoRViT(model, bucket, plain, routing=routing).eval()
