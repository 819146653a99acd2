"""The weights of a static graph: stem, blocks, routers and classifier in the options' style."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from morvit_deploy.graph.style.blocks import Projections, StaticBlock
from morvit_deploy.graph.style.ends import Classifier, StaticPredictor, StaticRouter
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.model.plan import Bucket, Plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.routings.counting import (
    layer_names,
    leaves_keys_unformed,
    routed_steps,
)
from morvit_deploy.model.routings.schedules import reads_cls_alone, routed_by

if TYPE_CHECKING:
    from morvit_deploy.graph.step import StaticRouting


class StaticWeights(nn.Module):
    """The shapes of one bucket, and the weights that all buckets of its plan share."""

    def __init__(
        self,
        model: MoRViT,
        bucket: Bucket,
        options: Options,
        plan: Plan | None,
        routing: type[StaticRouting],
    ) -> None:
        super().__init__()
        self.config, self.capacity, self.options = model.config, bucket.capacity, options
        self.thresholds = model.config.thresholds if plan is None else plan.thresholds
        self.lead = 0 if plan is None else plan.lead
        self.names = layer_names(model.config)
        self.reads_all = not reads_cls_alone(model.config, options.output)  # all patch tokens are read
        self.in_order = options.output == "tokens"  # and are returned in their own order
        self.cls_alone = (
            options.cls_only and not self.reads_all
        )  # rewrite 3: the last layer updates CLS alone
        self.routed = (
            routed_steps(model.config, bucket.capacity)
            if self.thresholds is None
            else routed_by(model.config, self.thresholds)
        )
        ladder = [bucket] if plan is None else plan.buckets
        self.sorts = any(min(b.capacity) < model.config.num_patches for b in ladder)
        style = options.style
        self.layout = style.layout
        self.selection = style.select(model.config.num_tokens, model.patch_embed.proj.weight.dtype)
        self.blocks = nn.ModuleDict(
            {
                _key(name): style.block(
                    block, fold=options.fold, projections=self._projections(name, routing)
                )
                for name, block in dict(model.layers()).items()
            }
        )
        pixels = options.input == "uint8"
        self.stem = style.stem(model, style.layout, pixels=pixels, fold=options.fold, single=style.single)
        self.routers = nn.ModuleList(
            [
                *(StaticRouter(one, style.block.linear) for one in model.all_routers()),
                *(
                    StaticPredictor(one, style.layout, style.block, fold=options.fold)
                    for one in model.predictors()
                ),
            ]
        )
        self.classifier = Classifier(
            model, style.block, style.layout, fold=options.fold, output=options.output
        )

    def _projections(self, name: str, routing: type[StaticRouting]) -> Projections:
        """How a block holds Q, K and V: those with fewer queries than keys do not hold them jointly."""
        if name == self.names[-1] and self.cls_alone:
            unformed = self.options.unformed_keys and leaves_keys_unformed(self.config)
            return "unformed" if unformed else "apart"
        # with depths the last layer holds fewer tokens, too
        held = name.startswith("cycle") or (self.config.record.depth_upfront and name == self.names[-1])
        splits = held and routing.splits_cycle(self.config, self.sorts)
        return "apart" if splits else "joint"

    def block(self, name: str) -> StaticBlock:
        """Return the block with the checkpoint name `name`."""
        return self.blocks[_key(name)]  # type: ignore[return-value]  # ModuleDict loses the type

    def router(self, step: int) -> nn.Module:
        """Return the router of a step, counted from 0."""
        return self.routers[0 if len(self.routers) == 1 else step]


def weight_name(name: str) -> str:
    """Return the name of a parameter in exported files: cycle.0.fc1.weight for blocks.cycle_0.fc1.weight."""
    return name.removeprefix("blocks.").replace("cycle_", "cycle.").replace(".layers", "")


def _key(name: str) -> str:
    return name.replace(".", "_")  # a ModuleDict key has no dots
