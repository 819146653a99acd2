"""From a trained model and a bucket to a static graph: every step is written out, every shape is known.

The static model reuses the trained weights and never learns of a target. It is an ordinary module: in float64
it is compared with the reference, in float32 an exporter writes it down.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy import routing
from morvit_deploy.blocks import StaticBlock
from morvit_deploy.config import Config
from morvit_deploy.ends import DEFAULTS, Classifier, Options, StaticRouter, Stem
from morvit_deploy.macs import layer_names
from morvit_deploy.model import MoRViT
from morvit_deploy.plan import Bucket
from morvit_deploy.rewrites import KV, cls_only, frozen_keys, partition, rank, take, take_one


class StaticMoRViT(nn.Module):
    """One bucket as a static graph. `forward` returns named tensors: logits, depth, and probes of each step.

    Probes are what `verify` compares token by token: `step{r}.router_logits` (batch, tokens held, 1),
    `step{r}.order` (batch, n) positions of the candidates, best first, `step{r}.state` (batch, tokens, dim).
    """

    def __init__(self, model: MoRViT, bucket: Bucket, options: Options = DEFAULTS) -> None:
        super().__init__()
        self.config, self.capacity, self.options = model.config, bucket.capacity, options
        self.names = layer_names(model.config)
        split = _blocks_in_parts(model.config, self.names, options)
        blocks = dict(model.layers())
        self.blocks = nn.ModuleDict(
            {
                _key(name): StaticBlock(block, fold=options.fold, fused=name not in split)
                for name, block in blocks.items()
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
        out["logits"] = self.classifier(cls[:, 0])
        return out

    def _block(self, name: str) -> StaticBlock:
        return self.blocks[_key(name)]  # type: ignore[return-value]

    def _take(self, h: Tensor, index: Tensor) -> Tensor:
        return (take_one if self.options.single else take)(h, index)

    # expert_choice ------------------------------------------------------------------------------------------

    def _recursion(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """first, R routed steps with their leavers set aside, last (paper §3.2, §3.4)."""
        middle = self.config.sharing == "middle_cycle"
        if middle:
            h = out["first"] = self._block("first")(h)
        left: list[Tensor] = []  # states of those who left, one tensor a step
        ids: list[Tensor] = []  # their numbers, for the depth map
        held = torch.arange(self.config.num_patches).expand(h.shape[0], -1)
        carried = Carried()
        for step, capacity in enumerate(self.capacity):
            h, z, leavers, held, gone = self._route(step, capacity, h, held, out)
            if leavers is not None:
                left.append(leavers)
            ids.append(gone)
            h = self._gated(step, h, z, left, carried)
            out[f"step{step + 1}.state"] = h
        if self.options.with_depth:
            out["depth"] = depth_of(ids, held)
        if not middle:
            return h
        return self._last(h, left, "last")

    def _route(
        self, step: int, capacity: int, h: Tensor, held: Tensor, out: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """Who runs this step: their states, their router logits, and the states and numbers of the leavers."""
        z = out[f"step{step + 1}.router_logits"] = self.routers[0 if len(self.routers) == 1 else step](h)
        candidates = h.shape[1] - 1
        if capacity == candidates:  # nobody leaves: nothing to route
            return h, z, None, held, held[:, :0]
        needed = candidates if self._keeps_leavers() or self.options.with_depth else capacity
        values, order = rank(z[:, 1:, 0], needed)
        out[f"step{step + 1}.order"] = order
        kept_order = order if self._keeps_leavers() else order[:, :capacity]
        h, leavers = partition(h, kept_order, capacity, single=self.options.single)
        z = torch.cat([z[:, :1, 0], values[:, :capacity]], dim=1)[..., None]
        if not self.options.with_depth:
            return h, z, leavers, held, held[:, :0]
        numbers = self._take(held[..., None], order)[..., 0]
        return h, z, leavers, numbers[:, :capacity], numbers[:, capacity:]

    def _keeps_leavers(self) -> bool:
        """Without a last block, and unless they stay keys, those who leave feed nothing."""
        return self.config.sharing == "middle_cycle" or self.config.attention_scope == "all"

    def _gated(self, step: int, h: Tensor, z: Tensor, left: list[Tensor], carried: Carried) -> Tensor:
        """The cycle on the running tokens h, then the gate; CLS alone where nothing else is read again."""
        after = h
        for i in range(self.config.cycle_depth):
            last = step == len(self.capacity) - 1 and i == self.config.cycle_depth - 1
            alone = last and self.config.sharing != "middle_cycle" and self.options.cls_only
            after = self._attend(f"cycle.{i}", after, left, carried, queries=1 if alone else after.shape[1])
        rows = after.shape[1]
        return self._gate(h[:, :rows], after, z[:, :rows])

    def _gate(self, h: Tensor, after: Tensor, z: Tensor) -> Tensor:
        """The gated update (batch, n, dim) of h, given the cycle's output and the router logits (batch, n, 1)."""
        if self.config.gate == "hard":
            return after
        assert self.config.router is not None
        g = routing.score(z, self.config.router.activation, self.config.router.alpha)
        return h + g * (after if self.config.gate == "block" else after - h)

    def _attend(
        self,
        name: str,
        x: Tensor,
        left: list[Tensor],
        carried: Carried,
        queries: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Block `name` on the first `queries` of x; with scope `all`, those who left are keys too."""
        block = self._block(name)
        if self.config.attention_scope == "active" or not left:
            if queries == 1 and not block.fused:
                return cls_only(block, x)
            return block(x, mask)
        fresh, known = (left, None) if not self.options.frozen_keys else carried.take(name, left)
        x, kv = frozen_keys(block, x, torch.cat(fresh, dim=1) if fresh else None, known, queries)
        carried.put(name, kv, len(left))
        return x

    def _last(self, h: Tensor, left: list[Tensor], name: str) -> Tensor:
        """The last block over all tokens, in any order: CLS first, leavers at the end."""
        h = torch.cat([h, *left], dim=1)
        return cls_only(self._block(name), h) if self.options.cls_only else self._block(name)(h)

    # token_choice -------------------------------------------------------------------------------------------

    def _depths(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Every token in every layer (the `full` bucket); a layer updates the tokens that are deep enough."""
        z = out["depth.router_logits"] = self.routers[0](h)
        depth = z[:, 1:].argmax(dim=-1) + 1  # (batch, N)
        if self.options.with_depth:
            out["depth"] = depth.to(torch.uint8)
        for layer, name in enumerate(self.names, start=1):
            final = layer == len(self.names) and self.options.cls_only
            runs = F.pad(depth >= layer, (1, 0), value=True)  # CLS runs every layer
            mask = None
            if self.config.attention_scope == "active" and layer > 1:
                mask = torch.where(runs, 0.0, float("-inf")).to(h.dtype)[:, None, None, :]
            if final:
                return self._final(self._block(name), h, mask)
            after = self._block(name)(h, mask)
            h = after if layer == 1 else torch.where(runs[..., None], after, h)
            out[f"step{layer}.state"] = h
        return h

    def _dense(self, h: Tensor, out: dict[str, Tensor]) -> Tensor:
        """Every token runs every layer."""
        if self.options.with_depth:
            shape = (h.shape[0], self.config.num_patches)
            out["depth"] = torch.full(shape, self.config.num_recursions, dtype=torch.uint8)
        for layer, name in enumerate(self.names, start=1):
            if layer == len(self.names) and self.options.cls_only:
                return cls_only(self._block(name), h)
            h = out[f"layer{layer}.state"] = self._block(name)(h)
        return h

    def _final(self, block: StaticBlock, h: Tensor, mask: Tensor | None) -> Tensor:
        normed = block.norm1(h)
        return block.finish(h[:, :1], block.queries(normed[:, :1]), block.keys(normed), mask)


class Carried:
    """Keys of the tokens that have left, per block, and how many groups of leavers they cover."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[KV | None, int]] = {}

    def take(self, name: str, left: list[Tensor]) -> tuple[list[Tensor], KV | None]:
        """The groups of `left` that block `name` has not keyed yet, and the keys it has."""
        known, seen = self._known.get(name, (None, 0))
        return left[seen:], known

    def put(self, name: str, kv: KV | None, seen: int) -> None:
        """Remember that block `name` has keyed the first `seen` groups."""
        self._known[name] = (kv, seen)


def depth_of(left: list[Tensor], held: Tensor) -> Tensor:
    """Steps run by each patch, uint8 (batch, N), from the numbers of who left at each step and who is held."""
    steps = [torch.full((gone.shape[1],), step, dtype=torch.uint8) for step, gone in enumerate(left)]
    steps.append(torch.full((held.shape[1],), len(left), dtype=torch.uint8))
    numbers = torch.cat([*left, held], dim=1)
    return torch.cat(steps)[torch.argsort(numbers, dim=1)]


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
