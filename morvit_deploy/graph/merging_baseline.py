"""Token merging as its published code would be exported: sorted edges, gathers, and a scatter that adds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from morvit_deploy.errors import TargetError
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.plan import Bucket
from morvit_deploy.model.reference import MoRViT


class ScatteredMerging(StaticRouting):
    """Tokens are gathered with an index for each channel, and those that merge are scattered to their partners."""

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        reduction, h = self.config.reduction, carried["h"]
        assert reduction is not None
        size = torch.ones_like(h[..., :1])  # (…, tokens, 1)
        steps = dict(zip(reduction.layers, self.capacity, strict=True))
        for layer, name in enumerate(self.graph.names):
            block = self.graph.block(name)
            q, kv = block.read(h)
            mask = size.log()[..., 0][..., None, None, :] if reduction.proportional else None
            h = block.attended(h, q, kv, mask)
            if layer in steps:
                h, size = _merged(h, size, block.mean_keys(kv), h.shape[-2] - 1 - steps[layer])
            h = block.fed(h)
        return h


def _merged(h: Tensor, size: Tensor, metric: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Merge r tokens of h (…, n, dim) with sizes (…, n, 1); all of A, CLS too, is compared with B."""
    metric = metric / metric.norm(dim=-1, keepdim=True)
    scores = metric[..., ::2, :] @ metric[..., 1::2, :].transpose(-2, -1)
    never = torch.full_like(scores[..., :1, :], float("-inf"))
    best, partner = torch.cat([never, scores[..., 1:, :]], dim=-2).max(dim=-1)
    edges = best.topk(best.shape[-1], dim=-1).indices
    source, rest = edges[..., :r], edges[..., r:].sort(dim=-1).values
    target = partner.gather(-1, source)

    def joined(values: Tensor) -> Tensor:
        a, b, shape = values[..., ::2, :], values[..., 1::2, :], values.shape[-1:]
        moving = a.gather(-2, source[..., None].expand(*source.shape, *shape))
        staying = a.gather(-2, rest[..., None].expand(*rest.shape, *shape))
        sums = b.scatter_add(-2, target[..., None].expand(*target.shape, *shape), moving)
        return torch.cat([staying, sums], dim=-2)

    total = joined(size)
    return joined(h * size) / total, total


def scattered(variant: Variant, model: MoRViT, bucket: Bucket, options: Options) -> StaticMoRViT:
    """Return the baseline of merged tokens; TargetError for another one."""
    if variant == "masked":
        raise TargetError(
            "form 'masked': got routing 'merged', expected one whose tokens leave: a token that has merged is the "
            "mean of several, so a mask of the original tokens does not compute it; use form 'gather_scatter'"
        )
    if options.with_depth:
        raise TargetError(f"form {variant!r}: got routing 'merged' with depth output, expected none")
    plain = replace(options, cls_only=False, frozen_keys=False)
    return StaticMoRViT(model, bucket, plain, routing=ScatteredMerging).eval()
