"""From a trained model and a bucket to a static graph: every step is written out, every shape is known.

The static model reuses the trained weights and never learns of a target. It is an ordinary module: in float64
it is compared with the reference, in float32 an exporter writes it down. It has two parts, so that buckets can
share the first: the stem ends where the bucket can be known, the trunk is the bucket's own.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from morvit_deploy import routing
from morvit_deploy.blocks import StaticBlock
from morvit_deploy.config import Config
from morvit_deploy.dispatch import counts_of, key_mask, sort_by_depth
from morvit_deploy.ends import DEFAULTS, Classifier, Options, StaticRouter, Stem
from morvit_deploy.macs import layer_names, routed_steps
from morvit_deploy.model import MoRViT
from morvit_deploy.plan import Bucket, Plan, routed_by
from morvit_deploy.rewrites import (
    KV,
    cls_only,
    frozen_keys,
    one_row,
    partition,
    partition_all,
    rank,
    take,
)

RESULTS = ("logits", "depth", "overflow")

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


class StaticMoRViT(nn.Module):
    """One bucket as a static graph. `forward` returns named tensors: logits, depth, overflow, and probes.

    Under thresholds, and for token_choice, a bucket holds as many tokens as its capacity; of these, some run and
    the others are pads: tokens that have left, whose state stands still. `overflow` says that an image needed more.

    Probes are what `verify` compares token by token: `step{r}.router_logits` (…, tokens held, 1),
    `step{r}.order` (…, n) positions of the candidates, best first, `step{r}.runs` (…, capacity), `step{r}.state`
    (…, tokens, dim); where CLS is routed too, it is one of the candidates. A graph for one image (`options.single`)
    has no batch axis inside; logits, depth and overflow always have one.
    """

    def __init__(
        self, model: MoRViT, bucket: Bucket, options: Options = DEFAULTS, plan: Plan | None = None
    ) -> None:
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
        split = _blocks_in_parts(model.config, self.names, options, self.sorts)
        self.blocks = nn.ModuleDict(
            {
                _key(name): StaticBlock(block, fold=options.fold, fused=name not in split)
                for name, block in dict(model.layers()).items()
            }
        )
        self.stem = Stem(model, options)
        self.routers = nn.ModuleList(StaticRouter(router) for router in model.all_routers())
        self.classifier = Classifier(model, options)

    def for_bucket(self, bucket: Bucket) -> StaticMoRViT:
        """The same weights in the shapes of another bucket of the plan."""
        other = copy.copy(self)
        other.capacity = bucket.capacity
        return other

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image as `options.input` says; see the class for what is returned."""
        out: dict[str, Tensor] = {}
        carried = self.begin(image, out)
        self.finish(carried, out)
        return self.with_batch_axis(out)

    def with_batch_axis(self, out: dict[str, Tensor], *, last: bool = True) -> dict[str, Tensor]:
        """Results have a batch axis, even those of a graph for one image; depth is uint8 if this is the `last` word.

        TensorRT takes uint8 only at a network's edge, so inside depths are int32.
        """
        single = self.options.single
        out = {name: value[None] if single and name in RESULTS else value for name, value in out.items()}
        return out | {"depth": out["depth"].to(torch.uint8)} if last and "depth" in out else out

    # the two parts ------------------------------------------------------------------------------------------

    def begin(self, image: Tensor, out: dict[str, Tensor]) -> Carried:
        """The stem: all that every bucket has in common, up to where the bucket can be known."""
        h = out["embed"] = self.stem(image)
        if self.config.routing == "none":
            return {"h": h}
        if self.config.routing == "token_choice":
            return self._choose_depths(h, out)
        return self._lead_in(h, out)

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> None:
        """The trunk: the rest, in this bucket's shapes."""
        trunks = {
            "expert_choice": self._recursion,
            "expert_choice_flat": self._flat,
            "token_choice": self._depths,
            "none": self._dense,
        }
        cls = trunks[self.config.routing](carried, out)
        out["logits"] = self.classifier(cls[..., 0, :])

    def counts(self, carried: Carried) -> Tensor:
        """What the bucket is chosen by, from the stem alone: int64 (…, steps).

        token_choice: how many patch tokens run each layer. expert_choice under thresholds: how many run the first
        routed step, one number.
        """
        if self.config.routing == "token_choice":
            return counts_of(carried["depth"], self.config.num_layers)
        assert self.thresholds is not None
        threshold = self.thresholds[self.lead]
        assert threshold is not None
        return (carried["z"][..., 1:, 0] >= threshold).sum(dim=-1, keepdim=True)

    def _block(self, name: str) -> StaticBlock:
        return self.blocks[_key(name)]  # type: ignore[return-value]  # ModuleDict loses the type

    def _router(self, step: int) -> nn.Module:
        return self.routers[0 if len(self.routers) == 1 else step]

    def _walk(self, h: Tensor) -> Walk:
        return Walk(h, torch.arange(self.config.num_patches).expand(*h.shape[:-2], -1))

    def _capacity(self, step: int, going: Tensor | None) -> int:
        """Patch tokens to hold at a step (from 0); `going` (…, held) says who of those held wants to run it."""
        return self.capacity[step]

    # expert_choice ------------------------------------------------------------------------------------------

    def _lead_in(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """first, the steps before the first routed one, and that one's router."""
        if self.config.sharing == "middle_cycle":
            h = out["first"] = self._block("first")(h)
        walk = self._walk(h)
        for step in range(self.lead):
            self._step(step, walk, None, out)
        if not self.routed[self.lead]:
            return {"h": walk.h}
        z = out[f"step{self.lead + 1}.router_logits"] = self._router(self.lead)(walk.h)
        return {"h": walk.h, "z": z}

    def _recursion(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """The routed steps with their leavers set aside, then last (paper §3.2, §3.4)."""
        walk = self._walk(carried["h"])
        if self.thresholds is not None and self.options.with_depth:
            walk.ran = torch.full(walk.held.shape, self.lead, dtype=torch.int32)
        walk.gone = [walk.held[..., :0]] * self.lead
        for step in range(self.lead, len(self.capacity)):
            self._step(step, walk, carried.get("z") if step == self.lead else None, out)
        if self.options.with_depth:
            out["depth"] = self._depth_output(walk)
        if walk.overflow is not None:
            out["overflow"] = walk.overflow
        return self._last(walk) if self.config.sharing == "middle_cycle" else walk.h

    def _step(self, step: int, walk: Walk, z: Tensor | None, out: dict[str, Tensor]) -> None:
        """One routed step; z (…, 1 + held, 1) are its router logits where the stem has computed them."""
        if z is None and self.routed[step]:
            z = out[f"step{step + 1}.router_logits"] = self._router(step)(walk.h)
        threshold = None if self.thresholds is None else self.thresholds[step]
        if threshold is not None:
            assert z is not None
            z = self._route_by_threshold(step, threshold, z, walk, out)
        elif z is not None:
            z = self._route(step, z, walk, out)
        else:
            walk.gone.append(walk.held[..., :0])
        if walk.ran is not None:
            walk.ran = walk.ran + (1 if walk.runs is None else walk.runs.to(torch.int32))
        walk.h = out[f"step{step + 1}.state"] = self._gated_step(step, walk, z)

    def _route(self, step: int, z: Tensor, walk: Walk, out: dict[str, Tensor]) -> Tensor:
        """Set aside who leaves before this step; the router logits (…, 1 + capacity, 1) of who runs it."""
        capacity, candidates = self._capacity(step, None), walk.h.shape[-2] - 1
        if self.thresholds is not None or capacity == candidates:  # nobody leaves: nothing to route
            walk.gone.append(walk.held[..., :0])
            return z
        needed = candidates if self._keeps_leavers() or self.options.with_depth else capacity
        values, order = rank(z[..., 1:, 0], needed)
        out[f"step{step + 1}.order"] = order
        self._set_aside(order, capacity, walk)
        return torch.cat([z[..., :1, 0], values[..., :capacity]], dim=-1)[..., None]

    def _route_by_threshold(
        self, step: int, threshold: float, z: Tensor, walk: Walk, out: dict[str, Tensor]
    ) -> Tensor:
        """Hold this step's capacity: first who reaches the threshold (paper §5.3), then pads.

        Returns the router logits (…, 1 + capacity, 1) of who is held.
        """
        scores = z[..., 1:, 0]
        going = scores >= threshold
        if walk.runs is not None:  # a token that left never returns
            going = going & walk.runs
            scores = torch.where(walk.runs, scores, float("-inf"))
        capacity, candidates = self._capacity(step, going), walk.h.shape[-2] - 1
        if walk.overflow is None:
            walk.overflow = going.sum(dim=-1) > capacity
        elif capacity < candidates:
            walk.overflow = walk.overflow | (going.sum(dim=-1) > capacity)
        if capacity == candidates:
            walk.runs = going
            walk.gone.append(walk.held[..., :0])
        else:
            needed = candidates if self._keeps_leavers() or self.options.with_depth else capacity
            values, order = rank(scores, needed)
            out[f"step{step + 1}.order"] = order
            self._set_aside(order, capacity, walk)
            walk.runs = values[..., :capacity] >= threshold
            z = torch.cat([z[..., :1, 0], values[..., :capacity]], dim=-1)[..., None]
        out[f"step{step + 1}.runs"] = walk.runs
        return z

    def _set_aside(self, order: Tensor, capacity: int, walk: Walk) -> None:
        """Keep CLS and the first `capacity` of order (…, n); the others leave what is held."""
        kept_order = order if self._keeps_leavers() else order[..., :capacity]
        walk.h, leavers = partition(walk.h, kept_order, capacity)
        if leavers is not None:
            walk.left.append(leavers)
        if self.options.with_depth:
            numbers = take(walk.held[..., None], order)[..., 0]
            walk.held = numbers[..., :capacity]
            walk.gone.append(numbers[..., capacity:])
            if walk.ran is not None:
                ran = take(walk.ran[..., None], order)[..., 0]
                walk.ran = ran[..., :capacity]
                walk.gone_ran.append(ran[..., capacity:])

    def _keeps_leavers(self) -> bool:
        """Without a last block, and unless they stay keys, those who leave feed nothing."""
        return self.config.sharing == "middle_cycle" or self.config.attention_scope == "all"

    def _gated_step(self, step: int, walk: Walk, z: Tensor | None) -> Tensor:
        """The cycle on the running tokens, then the gate; CLS alone where nothing else is read again."""
        after = walk.h
        for i in range(self.config.cycle_depth):
            final = step == len(self.capacity) - 1 and i == self.config.cycle_depth - 1
            alone = final and self.config.sharing != "middle_cycle" and self.options.cls_only
            before, after = after, self._attend(f"cycle.{i}", after, walk, alone)
            if i < self.config.cycle_depth - 1:  # the next block may read the pads as keys
                after = self._only_running(before, after, walk.runs)
        rows = after.shape[-2]
        return self._gate(walk.h[..., :rows, :], after, None if z is None else z[..., :rows, :], walk.runs)

    def _gate(self, h: Tensor, after: Tensor, z: Tensor | None, runs: Tensor | None = None) -> Tensor:
        """The gated update (…, n, dim) of h, given the cycle's output, the router logits (…, n, 1) and who runs."""
        if self.config.gate == "hard":
            return self._only_running(h, after, runs)
        assert self.config.router is not None and z is not None
        g = routing.score(z, self.config.router.activation, self.config.router.alpha)
        if runs is not None and g.shape[-2] > 1:
            g = torch.where(_with_cls(runs)[..., None], g, 0.0)  # a pad's state stands still
        return h + g * (after if self.config.gate == "block" else after - h)

    def _only_running(self, before: Tensor, after: Tensor, runs: Tensor | None) -> Tensor:
        """`after` (…, n, dim), where a pad keeps the state it had."""
        if runs is None or after.shape[-2] == 1:
            return after
        return torch.where(_with_cls(runs)[..., None], after, before)

    def _attend(self, name: str, x: Tensor, walk: Walk, alone: bool) -> Tensor:
        """Block `name` on x, or on its CLS alone; with scope `all`, those who left are keys too."""
        block = self._block(name)
        if self.config.attention_scope == "active":
            mask = None if walk.runs is None else key_mask(_with_cls(walk.runs), x.dtype)
            return cls_only(block, x, mask) if alone else block(x, mask)
        if not walk.left:
            return cls_only(block, x) if alone else block(x)
        carried, seen = walk.keyed.get(name, (None, 0)) if self.options.frozen_keys else (None, 0)
        fresh = torch.cat(walk.left[seen:], dim=-2) if walk.left[seen:] else None
        x, carried = frozen_keys(block, x, fresh, carried, queries=1 if alone else x.shape[-2])
        walk.keyed[name] = (carried, len(walk.left))
        return x

    def _last(self, walk: Walk) -> Tensor:
        """The last block over all tokens, in any order: CLS first, leavers at the end."""
        h = torch.cat([walk.h, *walk.left], dim=-2)
        return cls_only(self._block("last"), h) if self.options.cls_only else self._block("last")(h)

    def _depth_output(self, walk: Walk) -> Tensor:
        if walk.ran is None:
            return depth_of(walk.gone, walk.held)
        numbers = torch.cat([*walk.gone, walk.held], dim=-1)
        ran = torch.cat([*walk.gone_ran, walk.ran], dim=-1)
        return take(ran[..., None], torch.argsort(numbers, dim=-1))[..., 0]

    # expert_choice_flat -------------------------------------------------------------------------------------

    def _flat(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Each step runs the first rows of an order of its own over all tokens; the rest stand behind them."""
        h = carried["h"]
        numbers = torch.arange(h.shape[-2]).expand(*h.shape[:-2], -1)  # who stands at each row; CLS is 0
        ran = torch.zeros_like(numbers, dtype=torch.int32)
        for step, capacity in enumerate(self.capacity):
            running, rest = h, h[..., :0, :]
            if self.routed[step]:
                z = carried["z"] if step == 0 else self._router(step)(h)
                out[f"step{step + 1}.router_logits"] = z
                order = out[f"step{step + 1}.order"] = rank(z[..., 0], h.shape[-2])[1]
                running, rest = partition_all(h, order, capacity)
                numbers, ran = _rows(numbers, order), _rows(ran, order)
            for i in range(self.config.cycle_depth):
                running = self._block(f"cycle.{i}")(running)
            h = torch.cat([running, rest], dim=-2) if self.routed[step] else running
            out[f"step{step + 1}.state"] = h
            ran = ran + (torch.arange(h.shape[-2]) < capacity).to(torch.int32)
        if self.options.with_depth:
            out["depth"] = _rows(ran, torch.argsort(numbers, dim=-1))[..., 1:]
        cls = numbers[..., None].argmin(dim=-2)  # (…, 1); of a vector alone TensorRT takes no argmin
        if self.options.cls_only:
            return cls_only(self._block("last"), h, row=cls)
        return one_row(self._block("last")(h), cls)

    # token_choice -------------------------------------------------------------------------------------------

    def _choose_depths(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Each token's depth; where a bucket holds fewer than all, the tokens in the order of it, deepest first."""
        z = out["depth.router_logits"] = self._router(0)(h)
        depth = z[..., 1:, :].argmax(dim=-1) + 1  # (…, N)
        if self.options.with_depth:
            out["depth"] = depth.to(torch.int32)
        if self.sorts:
            order = out["depth.order"] = sort_by_depth(depth)
            h = partition(h, order, self.config.num_patches)[0]
            depth = take(depth[..., None], order)[..., 0]
        return {"h": h, "depth": depth}

    def _depths(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Layer s holds its capacity of tokens, deepest first, and updates those that are deep enough."""
        depth = carried["depth"]
        walk = self._walk(carried["h"])
        if self.sorts:
            needed = counts_of(depth, self.config.num_layers)
            walk.overflow = (needed > torch.tensor(self.capacity)).any(dim=-1)
        for layer, name in enumerate(self.names, start=1):
            capacity = self._capacity(layer - 1, depth >= layer) if self.sorts else self.config.num_patches
            if capacity < walk.h.shape[-2] - 1:
                if self.config.attention_scope == "all":
                    walk.left.append(walk.h[..., 1 + capacity :, :])
                walk.h = walk.h[..., : 1 + capacity, :]
            walk.runs = depth[..., :capacity] >= layer if layer > 1 else None
            final = layer == len(self.names) and self.options.cls_only
            after = self._attend(name, walk.h, walk, final)
            walk.h = out[f"step{layer}.state"] = self._only_running(walk.h, after, walk.runs)
        if walk.overflow is not None:
            out["overflow"] = walk.overflow
        return walk.h

    # none ---------------------------------------------------------------------------------------------------

    def _dense(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Every token runs every layer."""
        h = carried["h"]
        if self.options.with_depth:
            shape = (*h.shape[:-2], self.config.num_patches)
            out["depth"] = torch.full(shape, self.config.num_recursions, dtype=torch.int32)
        for layer, name in enumerate(self.names, start=1):
            if layer == len(self.names) and self.options.cls_only:
                return cls_only(self._block(name), h)
            h = out[f"layer{layer}.state"] = self._block(name)(h)
        return h


def _rows(values: Tensor, order: Tensor) -> Tensor:
    """values (…, n) in the order (…, k)."""
    return take(values[..., None], order)[..., 0]


def depth_of(gone: list[Tensor], held: Tensor) -> Tensor:
    """Steps run by each patch, int32 (…, N), from the numbers of who left at each step and who is held."""
    steps = [torch.full((left.shape[-1],), step, dtype=torch.int32) for step, left in enumerate(gone)]
    steps.append(torch.full((held.shape[-1],), len(gone), dtype=torch.int32))
    numbers = torch.cat([*gone, held], dim=-1)
    return torch.cat(steps)[torch.argsort(numbers, dim=-1)]


def unroll(
    model: MoRViT, bucket: Bucket, options: Options = DEFAULTS, plan: Plan | None = None
) -> StaticMoRViT:
    """The static graph of one bucket, equal to `model` under that bucket's schedule.

    `plan` is the one the bucket belongs to; without, the bucket stands alone and routes by top-k.
    """
    return StaticMoRViT(model, bucket, options, plan).eval()


def unroll_plan(model: MoRViT, plan: Plan, options: Options = DEFAULTS) -> dict[str, StaticMoRViT]:
    """Bucket name to its static graph; all of them hold the same weights."""
    first = unroll(model, plan.buckets[0], options, plan)
    return {bucket.name: first.for_bucket(bucket) for bucket in plan.buckets}


def _with_cls(runs: Tensor) -> Tensor:
    """(…, held) to (…, 1 + held): CLS always runs."""
    return nn.functional.pad(runs, (1, 0), value=True)


def _blocks_in_parts(config: Config, names: list[str], options: Options, sorts: bool) -> set[str]:
    """Blocks that are asked for fewer queries than keys."""
    parts = {names[-1]} if options.cls_only else set()
    if sorts or (config.routing == "expert_choice" and config.attention_scope == "all"):
        parts |= {name for name in names if name.startswith("cycle")}
    return parts


def _key(name: str) -> str:
    return name.replace(".", "_")  # a ModuleDict key has no dots
