"""From a trained model and a bucket to a static graph: every step is written out, every shape is known.

The static model reuses the trained weights and never learns of a target. It is an ordinary module: in float64
it is compared with the reference, in float32 an exporter writes it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy import routing
from morvit_deploy.blocks import StaticBlock
from morvit_deploy.config import Config
from morvit_deploy.ends import DEFAULTS, Classifier, Options, StaticRouter, Stem
from morvit_deploy.macs import layer_names, routed_steps
from morvit_deploy.model import MoRViT
from morvit_deploy.plan import Bucket
from morvit_deploy.rewrites import KV, cls_only, frozen_keys, partition, rank, take


@dataclass
class Walk:
    """Where the tokens are during the recursion."""

    h: Tensor  # (…, 1 + held, dim), CLS first: who is still running
    held: Tensor  # (…, held) their patch numbers, in the order of h
    left: list[Tensor] = field(default_factory=list)  # states of those who left, a tensor for each step
    gone: list[Tensor] = field(default_factory=list)  # their patch numbers, for the depth output
    keyed: dict[str, tuple[KV | None, int]] = field(
        default_factory=dict
    )  # block -> keys of the first n of left


class StaticMoRViT(nn.Module):
    """One bucket as a static graph. `forward` returns named tensors: logits, depth, and probes of each step.

    Probes are what `verify` compares token by token: `step{r}.router_logits` (…, tokens held, 1),
    `step{r}.order` (…, n) positions of the candidates, best first, `step{r}.state` (…, tokens, dim).
    A graph for one image (`options.single`) has no batch axis inside; logits and depth always have one.
    """

    def __init__(self, model: MoRViT, bucket: Bucket, options: Options = DEFAULTS) -> None:
        super().__init__()
        self.config, self.capacity, self.options = model.config, bucket.capacity, options
        self.names = layer_names(model.config)
        self.routed = routed_steps(model.config, bucket.capacity)
        split = _blocks_in_parts(model.config, self.names, options)
        self.blocks = nn.ModuleDict(
            {
                _key(name): StaticBlock(block, fold=options.fold, fused=name not in split)
                for name, block in dict(model.layers()).items()
            }
        )
        self.stem = Stem(model, options)
        self.routers = nn.ModuleList(StaticRouter(router) for router in model.all_routers())
        self.classifier = Classifier(model, options)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image as `options.input` says; see the class for what is returned."""
        out: dict[str, Tensor] = {}
        walks = {"expert_choice": self._recursion, "token_choice": self._depths, "none": self._dense}
        h = out["embed"] = self.stem(image)
        cls = walks[self.config.routing](h, out)
        out["logits"] = self.classifier(cls[..., 0, :])
        for name in ("logits", "depth"):
            if self.options.single and name in out:
                out[name] = out[name][None]
        return out

    def _block(self, name: str) -> StaticBlock:
        return self.blocks[_key(name)]  # type: ignore[return-value]  # ModuleDict loses the type

    def _router(self, step: int) -> nn.Module:
        return self.routers[0 if len(self.routers) == 1 else step]

    # expert_choice ------------------------------------------------------------------------------------------

    def _recursion(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """first, R routed steps with their leavers set aside, last (paper §3.2, §3.4)."""
        middle = self.config.sharing == "middle_cycle"
        if middle:
            h = out["first"] = self._block("first")(h)
        walk = Walk(h, torch.arange(self.config.num_patches).expand(*h.shape[:-2], -1))
        for step, capacity in enumerate(self.capacity):
            z = self._route(step, capacity, walk, out)
            walk.h = out[f"step{step + 1}.state"] = self._gated_step(step, walk, z)
        if self.options.with_depth:
            out["depth"] = depth_of(walk.gone, walk.held)
        return self._last(walk) if middle else walk.h

    def _route(self, step: int, capacity: int, walk: Walk, out: dict[str, Tensor]) -> Tensor | None:
        """Set aside who leaves before this step; the router logits (…, 1 + capacity, 1) of who runs it, if read."""
        if not self.routed[step]:
            walk.gone.append(walk.held[..., :0])
            return None
        z = out[f"step{step + 1}.router_logits"] = self._router(step)(walk.h)
        candidates = walk.h.shape[-2] - 1
        if capacity == candidates:  # nobody leaves: nothing to route
            walk.gone.append(walk.held[..., :0])
            return z
        needed = candidates if self._keeps_leavers() or self.options.with_depth else capacity
        values, order = rank(z[..., 1:, 0], needed)
        out[f"step{step + 1}.order"] = order
        walk.h, leavers = partition(
            walk.h, order if self._keeps_leavers() else order[..., :capacity], capacity
        )
        if leavers is not None:
            walk.left.append(leavers)
        if self.options.with_depth:
            numbers = take(walk.held[..., None], order)[..., 0]
            walk.held = numbers[..., :capacity]
            walk.gone.append(numbers[..., capacity:])
        return torch.cat([z[..., :1, 0], values[..., :capacity]], dim=-1)[..., None]

    def _keeps_leavers(self) -> bool:
        """Without a last block, and unless they stay keys, those who leave feed nothing."""
        return self.config.sharing == "middle_cycle" or self.config.attention_scope == "all"

    def _gated_step(self, step: int, walk: Walk, z: Tensor | None) -> Tensor:
        """The cycle on the running tokens, then the gate; CLS alone where nothing else is read again."""
        after = walk.h
        for i in range(self.config.cycle_depth):
            final = step == len(self.capacity) - 1 and i == self.config.cycle_depth - 1
            alone = final and self.config.sharing != "middle_cycle" and self.options.cls_only
            after = self._attend(f"cycle.{i}", after, walk, alone)
        rows = after.shape[-2]
        return self._gate(walk.h[..., :rows, :], after, None if z is None else z[..., :rows, :])

    def _gate(self, h: Tensor, after: Tensor, z: Tensor | None) -> Tensor:
        """The gated update (…, n, dim) of h, given the cycle's output and the router logits (…, n, 1)."""
        if self.config.gate == "hard":
            return after
        assert self.config.router is not None and z is not None
        g = routing.score(z, self.config.router.activation, self.config.router.alpha)
        return h + g * (after if self.config.gate == "block" else after - h)

    def _attend(self, name: str, x: Tensor, walk: Walk, alone: bool) -> Tensor:
        """Block `name` on x, or on its CLS alone; with scope `all`, those who left are keys too."""
        block = self._block(name)
        if self.config.attention_scope == "active" or not walk.left:
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

    # token_choice -------------------------------------------------------------------------------------------

    def _depths(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Every token in every layer (the `full` bucket); a layer updates the tokens that are deep enough."""
        z = out["depth.router_logits"] = self._router(0)(h)
        depth = z[..., 1:, :].argmax(dim=-1) + 1  # (…, N)
        if self.options.with_depth:
            out["depth"] = depth.to(torch.uint8)
        for layer, name in enumerate(self.names, start=1):
            runs = F.pad(depth >= layer, (1, 0), value=True)  # CLS runs every layer
            mask = self._key_mask(runs, h) if layer > 1 else None
            if layer == len(self.names) and self.options.cls_only:
                return cls_only(self._block(name), h, mask)
            after = self._block(name)(h, mask)
            h = after if layer == 1 else torch.where(runs[..., None], after, h)
            out[f"step{layer}.state"] = h
        return h

    def _key_mask(self, runs: Tensor, h: Tensor) -> Tensor | None:
        """Added to attention logits: hides the keys of tokens that do not run; None where all stay keys."""
        if self.config.attention_scope == "all":
            return None
        return torch.where(runs, 0.0, float("-inf")).to(h.dtype)[..., None, None, :]

    # none ---------------------------------------------------------------------------------------------------

    def _dense(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Every token runs every layer."""
        if self.options.with_depth:
            shape = (*h.shape[:-2], self.config.num_patches)
            out["depth"] = torch.full(shape, self.config.num_recursions, dtype=torch.uint8)
        for layer, name in enumerate(self.names, start=1):
            if layer == len(self.names) and self.options.cls_only:
                return cls_only(self._block(name), h)
            h = out[f"layer{layer}.state"] = self._block(name)(h)
        return h


def depth_of(gone: list[Tensor], held: Tensor) -> Tensor:
    """Steps run by each patch, uint8 (…, N), from the numbers of who left at each step and who is held."""
    steps = [torch.full((left.shape[-1],), step, dtype=torch.uint8) for step, left in enumerate(gone)]
    steps.append(torch.full((held.shape[-1],), len(gone), dtype=torch.uint8))
    numbers = torch.cat([*gone, held], dim=-1)
    return torch.cat(steps)[torch.argsort(numbers, dim=-1)]


def unroll(model: MoRViT, bucket: Bucket, options: Options = DEFAULTS) -> StaticMoRViT:
    """The static graph of one bucket, equal to `model` under that bucket's schedule."""
    return StaticMoRViT(model, bucket, options).eval()


def _blocks_in_parts(config: Config, names: list[str], options: Options) -> set[str]:
    """Blocks that are asked for fewer queries than keys."""
    parts = {names[-1]} if options.cls_only else set()
    if config.routing == "expert_choice" and config.attention_scope == "all":
        parts |= {name for name in names if name.startswith("cycle")}
    return parts


def _key(name: str) -> str:
    return name.replace(".", "_")  # a ModuleDict key has no dots
