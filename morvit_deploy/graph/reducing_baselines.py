"""Shortened ViTs as they would be exported without the rewrites: every token runs every layer, some are masked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.graph.maths.dispatch import key_mask
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.graph.style.blocks import StaticBlock


class MaskedReducing(StaticRouting):
    """Base of both: tokens that have left are masked as keys; what their rows hold is not read."""

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        assert self.config.reduction is not None
        steps = {layer: step for step, layer in enumerate(self.config.reduction.layers)}
        h = carried["h"]
        active = torch.ones(h.shape[:-1], dtype=torch.bool)  # (…, N + 1), CLS first
        depth = torch.zeros_like(active, dtype=torch.int32)
        for layer, name in enumerate(self.graph.names):
            h, active = self.layer(self.graph.block(name), steps.get(layer), h, active)
            if layer in steps:
                depth = depth + active[..., : depth.shape[-1]].to(torch.int32)
        if self.options.with_depth:
            out["depth"] = depth[..., 1 : 1 + self.config.num_patches]
        return h

    def layer(self, block: StaticBlock, step: int | None, h: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (…, n, dim) after a layer, and which tokens are still there (…, n)."""
        raise NotImplementedError

    def best(self, scores: Tensor, active: Tensor, step: int) -> Tensor:
        """Return which tokens go on (…, n): CLS, and the best active ones by scores (…, n − 1)."""
        scores = scores.masked_fill(~active[..., 1:], float("-inf"))
        chosen = scores >= scores.topk(self.capacity[step], dim=-1).values[..., -1:]
        return active & F.pad(chosen, (1, 0), value=True)


class MaskedAttentive(MaskedReducing):
    """`attentive`: a fused token is a row more, to which every token contributes, most of them zero."""

    def layer(self, block: StaticBlock, step: int | None, h: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        assert self.config.reduction is not None
        mask = key_mask(active, h.dtype)
        if step is None or not self._some_leave(step):
            return block(h, mask), active
        q, kv = block.read(h)
        scores = block.first_weights(q, kv, h.dtype, mask)
        h, before = block.attended(h, q, kv, mask), active
        active = self.best(scores[..., 1:], active, step)
        if self.config.reduction.fuse:
            weights = torch.where(before & ~active, scores, 0.0)
            h = torch.cat([h, self.layout.weighted(h, weights)], dim=-2)
            active = F.pad(active, (0, 1), value=True)
        return block.fed(h), active

    def _some_leave(self, step: int) -> bool:
        assert self.config.reduction is not None
        held = self.capacity[step - 1] if step else self.config.num_patches
        appended = self.config.reduction.fuse and held < self.config.num_patches
        return self.capacity[step] < held + appended


class MaskedPredicted(MaskedReducing):
    """`predicted`: the predictor runs on all patch tokens, its mean over those that are still there."""

    def layer(self, block: StaticBlock, step: int | None, h: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        held = self.config.num_patches if not step else self.capacity[step - 1]
        if step is not None and self.capacity[step] < held:
            among = active[..., 1:, None].to(h.dtype)
            z = self.graph.router(step)(h[..., 1:, :], among)
            active = self.best(z[..., 0], active, step)
        return block(h, key_mask(active, h.dtype)), active
